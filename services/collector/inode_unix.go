//go:build unix

package collector

import (
	"io/fs"
	"syscall"
)

// inodeOf names a file apart from its path.
func inodeOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Ino)
	}
	return 0
}
