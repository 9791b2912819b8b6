package sink

import (
	"errors"
	"testing"

	"github.com/opencoc/coc/services/bus"
	"github.com/opencoc/coc/services/store"
)

// Whatever stands in FINDINGS and WORK is read or refused as data, never worse.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{"", "\n\n", `{"id":"f1","rule":"r"}`, `{"id":"f1","rule":"r","cell":{"from":1}}`, `{"tenant":"t","hash":"h","sealed":"c2VhbGVk","first_seen":"2026-11-23T10:00:00Z"}`,
		`{"data":{"a":[[[]]]},"time":"9999-12-31T00:00:00Z"}`, "{\"id\":\"\x00\xff\"}", `[1,2]`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := bus.Message{Seq: 1, Subject: "coc.work.identity.i", Data: data}
		_, err := appendFindings(nil, m)
		_, err2 := readIdentity(m)
		_, err3 := readChange(m)
		for _, err := range []error{err, err2, err3} {
			if err != nil && !errors.Is(err, store.ErrData) {
				t.Errorf("error is not about the data: %v", err)
			}
		}
		it := inspect(bus.Message{Subject: "coc.events.c", Data: data, Meta: bus.Meta{Collector: "c", Rows: int64(len(data))}})
		if it.bad == "" && it.holdsEvents() == (len(data) == 0) {
			t.Errorf("%d bytes taken as events: %v", len(data), it.holdsEvents())
		}
	})
}
