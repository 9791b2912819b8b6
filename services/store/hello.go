//go:build linux || darwin

package store

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	chcolumn "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// helloQuery is the first thing clickhouse-go asks on a connection. It reads
// the answer as a block of its own protocol version; the answer's revision 0
// then makes it read every later block as plain Native, which is what the
// engine writes.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

func (t embeddedTransport) hello(req *http.Request) (*http.Response, error) {
	c, err := t.engine.acquire(req.Context(), "", nil)
	if err != nil {
		return nil, err
	}
	version, err := c.run("SELECT version()")
	t.engine.release(c, false)
	if err != nil {
		return nil, fmt.Errorf("asking the embedded ClickHouse for its version: %w", err)
	}
	block := proto.NewBlock()
	for _, column := range []struct{ name, kind string }{
		{"displayName()", "String"}, {"version()", "String"}, {"revision()", "UInt32"}, {"timezone()", "String"},
	} {
		if err := block.AddColumn(column.name, chcolumn.Type(column.kind)); err != nil {
			return nil, fmt.Errorf("greeting the driver: %w", err)
		}
	}
	if err := block.Append("coc", strings.TrimSpace(version), uint32(0), "UTC"); err != nil {
		return nil, fmt.Errorf("greeting the driver: %w", err)
	}
	var buf chproto.Buffer
	if err := block.Encode(&buf, clickhouse.ClientTCPProtocolVersion); err != nil {
		return nil, fmt.Errorf("greeting the driver: %w", err)
	}
	return answered(req, 0, int64(len(buf.Buf)), io.NopCloser(bytes.NewReader(buf.Buf))), nil
}
