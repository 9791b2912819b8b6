//go:build !(armbe || arm64be || m68k || mips || mips64 || mips64p32 || ppc || ppc64 || s390 || s390x || shbe || sparc || sparc64)

package event

// Columns are read and written in place, so the machine's byte order must be
// Arrow's: little endian. On another machine the package does not build, since
// this constant is missing there.
const littleEndian = true

var _ = littleEndian
