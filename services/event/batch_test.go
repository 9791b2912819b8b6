package event

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
)

// sample makes the i-th event of a mix that uses every field.
func sample(i int) Event {
	r := rand.New(rand.NewPCG(7, uint64(i)))
	e := Event{
		Time: 1_700_000_000_000 + int64(i)*17, Received: 1_700_000_000_500 + int64(i)*17,
		Kind: "user", Action: fmt.Sprintf("action_%d", r.IntN(9)), Outcome: "success",
		Message: fmt.Sprintf("line %d of %d ünïcode", i, r.IntN(1000)),
		Source:  "test", Collector: "c1", Epoch: 1, Seq: int64(i + 1),
		TenantID: fmt.Sprintf("t-%04d", r.IntN(50)), TenantTier: "small", UserName: fmt.Sprintf("user%d", r.IntN(20)),
		SourceIP: fmt.Sprintf("10.0.%d.%d", r.IntN(3), r.IntN(200)), HostName: "h1", ServiceName: "profit",
		ResourceType: "window", ResourceName: "Eigenschappen Medewerker",
	}
	if i%2 == 0 {
		e.SetDuration(float64(r.IntN(5000)))
	}
	if i%3 == 0 {
		e.SetBytes(r.Int64N(1 << 40))
		e.SetLabel("z", "last")
		e.SetLabel("a", fmt.Sprint(i))
	}
	if i%5 == 0 {
		e.SetPID(int64(i))
		e.SetValue(-1.5)
		e.ProcessCommandLine = "/bin/true --flag"
	}
	return e
}

func encoded(t testing.TB, from, n int) []byte {
	t.Helper()
	b := NewBuilder()
	for i := range n {
		e := sample(from + i)
		if err := b.Append(&e); err != nil {
			t.Fatal(err)
		}
	}
	msg, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func rowsOf(t testing.TB, msg []byte) (list []Event) {
	t.Helper()
	b, err := Decode(msg)
	if err != nil {
		t.Fatal(err)
	}
	for row := range b.Rows() {
		var e Event
		b.Event(row, &e)
		list = append(list, clone(e))
	}
	b.Release()
	return list
}

func clone(e Event) Event {
	for i := range Fields {
		if p := e.Text(i); p != nil {
			*p = string([]byte(*p))
		}
	}
	var l []Label
	for _, x := range e.Labels {
		l = append(l, Label{string([]byte(x.Key)), string([]byte(x.Value))})
	}
	e.Labels = l
	return e
}

func TestWhatGoesInComesOut(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 8, 9, 1000, LimitRows} {
		got := rowsOf(t, encoded(t, 0, n))
		if len(got) != n {
			t.Fatalf("%d rows in, %d out", n, len(got))
		}
		for i := range got {
			if want := sample(i); !reflect.DeepEqual(got[i], want) {
				t.Fatalf("row %d of %d:\n got %+v\nwant %+v", i, n, got[i], want)
			}
		}
	}
}

func TestBuilderRefusesMoreThanAMessageHolds(t *testing.T) {
	b := NewBuilder()
	e := sample(1)
	for range LimitRows {
		if err := b.Append(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Append(&e); err == nil || b.Rows() != LimitRows {
		t.Fatalf("row %d was taken (%v)", LimitRows+1, err)
	}
	if _, err := b.Encode(); err != nil {
		t.Fatal(err)
	}
	if b.Rows() != 0 || b.RawBytes() != 0 {
		t.Fatal("Encode left something behind")
	}
}

func TestSameEventsGiveSameBytes(t *testing.T) {
	b := NewBuilder()
	var first []byte
	for round := range 3 {
		for i := range 500 {
			e := sample(i)
			if err := b.Append(&e); err != nil {
				t.Fatal(err)
			}
		}
		msg, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			first = msg
		} else if !bytes.Equal(first, msg) {
			t.Fatal("a reused builder wrote other bytes")
		}
	}
}

// The reader of another implementation must see the same rows: the stream is
// Arrow, not something like it.
func TestArrowsOwnReaderAgrees(t *testing.T) {
	parts, rows, err := Splice([][]byte{encoded(t, 0, 100), encoded(t, 100, 1), encoded(t, 101, 3000)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ipc.NewReader(bytes.NewReader(bytes.Join(parts, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if !r.Schema().Equal(Schema) {
		t.Fatalf("schema %v", r.Schema())
	}
	i := 0
	for r.Next() {
		rec := r.RecordBatch()
		action := rec.Column(FAction).(*array.Dictionary)
		values := action.Dictionary().(*array.String)
		seq := rec.Column(FSeq).(*array.Int64)
		duration := rec.Column(FDuration).(*array.Float64)
		for row := range int(rec.NumRows()) {
			want := sample(i)
			if values.Value(action.GetValueIndex(row)) != want.Action || seq.Value(row) != want.Seq ||
				duration.IsNull(row) != (want.Has&HasDuration == 0) {
				t.Fatalf("row %d differs", i)
			}
			i++
		}
	}
	if r.Err() != nil || i != rows || rows != 3101 {
		t.Fatalf("%d rows read, %d said, error %v", i, rows, r.Err())
	}
}

func TestMergeEqualsOneBatch(t *testing.T) {
	merged, err := Merge([][]byte{encoded(t, 0, 10), encoded(t, 10, 0), encoded(t, 10, 490)})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(merged, encoded(t, 0, 500)) {
		t.Fatal("merging three messages gave other bytes than building one")
	}
}

func TestEveryTruncatedPrefixIsRefused(t *testing.T) {
	msg := encoded(t, 0, 20)
	for n := range msg {
		if b, err := Decode(msg[:n]); !errors.Is(err, ErrMessage) {
			t.Fatalf("prefix of %d of %d bytes: batch %v, error %v", n, len(msg), b != nil, err)
		}
		if _, _, err := Splice([][]byte{msg[:n]}); !errors.Is(err, ErrMessage) {
			t.Fatalf("splice of a prefix of %d bytes: %v", n, err)
		}
	}
}

// Whatever a flipped byte does, it must end in an error or in a batch that can
// be read to its end.
func TestFlippedBytesNeverPanic(t *testing.T) {
	msg := encoded(t, 0, 30)
	for i := range msg {
		for _, x := range []byte{1, 0x80, 0xFF} {
			bad := bytes.Clone(msg)
			bad[i] ^= x
			readAll(bad)
		}
	}
}

func readAll(msg []byte) {
	b, err := Decode(msg)
	if err != nil {
		return
	}
	var e Event
	for row := range b.Rows() {
		b.Event(row, &e)
	}
	b.Release()
}

func TestTheWritersSchemaIsAmongTheKnown(t *testing.T) {
	list, err := frames(encoded(t, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkSchema(list[0].bytes); err != nil {
		if os.Getenv("COC_UPDATE") != "" {
			if err := os.WriteFile("schema-v1.arrow", list[0].bytes, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Fatalf("%v: bump SchemaVersion, or run once with COC_UPDATE=1 before the first release", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, 0, 0))
	f.Add(encoded(f, 0, 3))
	f.Add(encoded(f, 3, 200))
	f.Fuzz(func(t *testing.T, msg []byte) {
		readAll(msg)
		n, err := CountRows(msg)
		if b, derr := Decode(msg); derr == nil {
			if err != nil || n != b.Rows() {
				t.Fatalf("decoded %d rows, counted %d (%v)", b.Rows(), n, err)
			}
			b.Release()
		}
	})
}

func FuzzSplice(f *testing.F) {
	f.Add(encoded(f, 0, 3), encoded(f, 3, 5))
	f.Add(encoded(f, 0, 0), []byte("nonsense"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		parts, rows, err := Splice([][]byte{a, b})
		if err != nil {
			return
		}
		na, _ := CountRows(a)
		nb, _ := CountRows(b)
		if rows != na+nb || len(bytes.Join(parts, nil)) > len(a)+len(b) {
			t.Fatalf("spliced %d rows of %d and %d", rows, na, nb)
		}
	})
}

func TestAppendingAllocatesNothingOnceWarm(t *testing.T) {
	b := NewBuilder()
	events := make([]Event, 256)
	for i := range events {
		events[i] = sample(i)
	}
	fill := func() {
		for i := range events {
			if err := b.Append(&events[i]); err != nil {
				t.Fatal(err)
			}
		}
		b.Reset()
	}
	fill()
	if n := testing.AllocsPerRun(20, fill); n > 0 {
		t.Fatalf("%v allocations for 256 events", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	events := make([]Event, LimitRows/4)
	for i := range events {
		events[i] = sample(i)
	}
	bl := NewBuilder()
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		for i := range events {
			if err := bl.Append(&events[i]); err != nil {
				b.Fatal(err)
			}
		}
		msg, err := bl.Encode()
		if err != nil {
			b.Fatal(err)
		}
		size = len(msg)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
	b.ReportMetric(float64(size)/float64(len(events)), "bytes/event")
}

func BenchmarkDecode(b *testing.B) {
	msg := encoded(b, 0, LimitRows/2)
	b.ReportAllocs()
	for b.Loop() {
		batch, err := Decode(msg)
		if err != nil {
			b.Fatal(err)
		}
		batch.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(LimitRows/2), "ns/event")
}

func TestBodiesArePackedWithLZ4(t *testing.T) {
	msg := encoded(t, 0, 500)
	list, err := frames(msg)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range list[1:] {
		if r, err := recordsOf(f); err != nil || !r.compressed {
			t.Errorf("frame %d: compressed %v (%v); only LZ4 frames are read as compressed", i+1, r.compressed, err)
		}
	}
}

// Decoding takes one block for all columns, whatever the rows.
func TestDecodingAllocatesByMessageNotByEvent(t *testing.T) {
	for _, n := range []int{10, 4000} {
		msg := encoded(t, 0, n)
		decode := func() {
			b, err := Decode(msg)
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		decode()
		if a := testing.AllocsPerRun(10, decode); a > 20 {
			t.Errorf("%v allocations for a message of %d events", a, n)
		}
	}
}
