package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestIntakeIsAcknowledgedAfterTheWorkOnly(t *testing.T) {
	b := open(t, config(t))
	for i := range 20 {
		if err := b.PublishIntake(t.Context(), "erp", fmt.Sprintf("id-%d", i/2), fmt.Appendf(nil, "m%d", i/2)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var done []string
	tries := map[uint64]int{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.ConsumeIntake(ctx, func(_ context.Context, m IntakeMessage) error {
			mu.Lock()
			defer mu.Unlock()
			tries[m.Seq]++
			if string(m.Data) == "m3" && tries[m.Seq] == 1 {
				return errors.New("the bus is full")
			}
			if m.Source != "erp" || m.ID != "id-"+strings.TrimPrefix(string(m.Data), "m") || m.Redelivered != (tries[m.Seq] > 1) || m.Key() == "" {
				t.Errorf("message %+v", m)
			}
			done = append(done, string(m.Data))
			return nil
		})
	}()
	eventually(t, "INTAKE is empty", func() bool {
		return must[[]StreamInfo](t)(b.Info(t.Context()))[2].Messages == 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	slices.Sort(done)
	if want := "[m0 m1 m2 m3 m4 m5 m6 m7 m8 m9]"; fmt.Sprint(done) != want {
		t.Errorf("worked on %v, want each id once", done)
	}
}

func TestIntakeLeftUndoneComesToTheNextCollectorAtOnce(t *testing.T) {
	b := open(t, config(t))
	for range 600 { // more than are worked on at once
		if err := b.PublishIntake(t.Context(), "erp", "", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var begun atomic.Int32
	ended := make(chan error, 1)
	go func() {
		ended <- b.ConsumeIntake(ctx, func(ctx context.Context, _ IntakeMessage) error {
			begun.Add(1)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	eventually(t, "as many as may be are begun", func() bool { return begun.Load() == IntakeConcurrency })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), intakeAckWait/2)
	defer cancel()
	var got atomic.Int32
	err := b.ConsumeIntake(ctx, func(context.Context, IntakeMessage) error {
		if got.Add(1) == 600 {
			cancel()
		}
		return nil
	})
	if err != nil || got.Load() < 600 {
		t.Errorf("the next collector got %d of 600: %v", got.Load(), err)
	}
}

func TestDeadLetterKeepsEverythingOnce(t *testing.T) {
	b := open(t, config(t))
	d := DeadLetter{Reason: "bad_arrow", From: "sink", Source: "web-1", Detail: "line one\r\nline two \x00 ü", Seq: 17, Subject: "coc.events.web-1", Data: []byte("data")}
	for range 2 {
		if err := b.DeadLetter(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	d.Seq = 0
	d.Detail = strings.Repeat("é", maxDetail)
	if err := b.DeadLetter(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	r := must[*Reader](t)(b.DeadLetters(t.Context(), 0))
	defer r.Close()
	got := must[DeadLetter](t)(ParseDeadLetter(next(t, r)))
	if got.Reason != "bad_arrow" || got.From != "sink" || got.Source != "web-1" || got.Seq != 17 || got.Detail != "line one\r\nline two \x00 ü" || string(got.Data) != "data" || got.Time.IsZero() {
		t.Errorf("got %+v", got)
	}
	second := next(t, r)
	if got := must[DeadLetter](t)(ParseDeadLetter(second)); len(got.Detail) > maxDetail || r.Pending() != 0 {
		t.Errorf("detail of %d bytes, %d pending", len(got.Detail), r.Pending())
	}
	if err := b.DropDeadLetter(t.Context(), second.Seq); err != nil {
		t.Fatal(err)
	}
	if n := must[[]StreamInfo](t)(b.Info(t.Context()))[3].Messages; n != 1 {
		t.Errorf("%d left", n)
	}
}

func TestWorkIsComparedAndSet(t *testing.T) {
	b := open(t, config(t))
	_, err := b.GetWork(t.Context(), "case", "c1")
	wantErr(t, err, ErrNotFound)
	one := must[uint64](t)(b.PutWork(t.Context(), "case", "c1", 0, []byte("opened")))
	_, err = b.PutWork(t.Context(), "case", "c1", 0, []byte("opened twice"))
	wantErr(t, err, ErrConflict)
	must[uint64](t)(b.PutWork(t.Context(), "case", "c1", one, []byte("closed")))
	m := must[Message](t)(b.GetWork(t.Context(), "case", "c1"))
	if kind, id := m.WorkKind(); kind != "case" || id != "c1" || string(m.Data) != "closed" {
		t.Errorf("%s %s %q", kind, id, m.Data)
	}
	if err := b.PurgeWork(t.Context(), "case", "c1"); err != nil {
		t.Fatal(err)
	}
	_, err = b.GetWork(t.Context(), "case", "c1")
	wantErr(t, err, ErrNotFound)
	_, err = b.PutWork(t.Context(), "case", "a.b", 0, nil)
	wantErr(t, err, ErrInvalid)
	_, err = b.PutWork(t.Context(), "case", "big", 0, make([]byte, MaxWorkBytes+1))
	wantErr(t, err, ErrTooBig)
}

func TestAuditHasOneOrder(t *testing.T) {
	b := open(t, config(t))
	_, err := b.LastAudit(t.Context())
	wantErr(t, err, ErrNotFound)
	one := must[uint64](t)(b.PutAudit(t.Context(), 0, []byte("1")))
	_, err = b.PutAudit(t.Context(), 0, []byte("1b"))
	wantErr(t, err, ErrConflict)
	must[uint64](t)(b.PutAudit(t.Context(), one, []byte("2")))
	if m := must[Message](t)(b.LastAudit(t.Context())); string(m.Data) != "2" {
		t.Errorf("last is %q", m.Data)
	}
}

func TestKeyValue(t *testing.T) {
	b := open(t, config(t))
	ctx := t.Context()
	_, err := b.KV("leases")
	wantErr(t, err, ErrNotFound) // the bus's own
	kv := must[*KV](t)(b.KV(BucketHouse))
	_, err = kv.Get(ctx, "a/b.c")
	wantErr(t, err, ErrNotFound)
	rev := must[uint64](t)(kv.Create(ctx, "a/b.c", []byte("1")))
	_, err = kv.Create(ctx, "a/b.c", []byte("2"))
	wantErr(t, err, ErrConflict)
	rev2 := must[uint64](t)(kv.Update(ctx, "a/b.c", []byte("2"), rev))
	_, err = kv.Update(ctx, "a/b.c", []byte("3"), rev)
	wantErr(t, err, ErrConflict)
	if e := must[Entry](t)(kv.Get(ctx, "a/b.c")); string(e.Value) != "2" || e.Revision != rev2 || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	watching, cancel := context.WithCancel(ctx)
	seen := make(chan Entry, 8)
	ended := make(chan error, 1)
	go func() { ended <- kv.Watch(watching, ">", func(e Entry) error { seen <- e; return nil }) }()
	if e := <-seen; e.Key != "a/b.c" || string(e.Value) != "2" {
		t.Errorf("watch begins with %+v", e)
	}
	if err := kv.Delete(ctx, "a/b.c"); err != nil {
		t.Fatal(err)
	}
	if e := <-seen; !e.Deleted {
		t.Errorf("watch goes on with %+v", e)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if keys := must[[]string](t)(kv.Keys(ctx)); len(keys) != 0 {
		t.Errorf("keys %v", keys)
	}
	must[uint64](t)(kv.Create(ctx, "a/b.c", []byte("again")))
	_, err = kv.Put(ctx, "big", make([]byte, MaxValueBytes+1))
	wantErr(t, err, ErrTooBig)
	for _, key := range []string{"", ".a", "a.", "a..b", "a b", "a*", ">", strings.Repeat("k", maxKey+1)} {
		_, err := kv.Put(ctx, key, nil)
		wantErr(t, err, ErrInvalid)
	}
}

func TestTokens(t *testing.T) {
	c := config(t)
	var shift atomic.Int64
	c.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	b := open(t, c)
	ctx := t.Context()
	secret := must[string](t)(b.IssueToken(ctx, Token{Role: "intake", Source: "erp", TenantGlob: "t-*", Expires: b.Now().Add(time.Hour)}))
	tok := must[Token](t)(b.VerifyToken(ctx, secret))
	if !strings.HasPrefix(secret, "coc_"+tok.ID+"_") || len(secret) < 40 || tok.Role != "intake" || tok.Source != "erp" || tok.TenantGlob != "t-*" || tok.Hash != "" {
		t.Errorf("secret %s, token %+v", secret, tok)
	}
	for _, bad := range []string{"", "coc_", "coc__", secret[:len(secret)-1] + "0", secret + "a", "coc_aaaaaaaa_" + strings.Repeat("a", 32), strings.Repeat("x", 10_000), "coc_../x_y"} {
		_, err := b.VerifyToken(ctx, bad)
		wantErr(t, err, ErrToken)
	}
	shift.Store(int64(2 * time.Hour))
	_, err := b.VerifyToken(ctx, secret)
	wantErr(t, err, ErrToken)
	shift.Store(0)
	must[Token](t)(b.VerifyToken(ctx, secret))
	if err := b.RevokeToken(ctx, tok.ID); err != nil {
		t.Fatal(err)
	}
	_, err = b.VerifyToken(ctx, secret)
	wantErr(t, err, ErrToken)
	wantErr(t, b.RevokeToken(ctx, "nobody"), ErrNotFound)
	all := must[[]Token](t)(b.Tokens(ctx))
	if len(all) != 1 || !all[0].Revoked || all[0].Hash != "" {
		t.Errorf("tokens %+v", all)
	}
	_, err = b.IssueToken(ctx, Token{Role: "analyst", Expires: b.Now().Add(-time.Second)})
	wantErr(t, err, ErrInvalid)
}

// A sender outside the house has a token for its own subject and nothing else.
func TestListenerLetsASenderDoOneThing(t *testing.T) {
	c := config(t)
	c.Listen, c.Secret = "127.0.0.1:0", "s3cret-of-the-house"
	b := open(t, c)
	intake := must[string](t)(b.IssueToken(t.Context(), Token{Role: "intake", Source: "erp"}))
	analyst := must[string](t)(b.IssueToken(t.Context(), Token{Role: "analyst"}))
	for name, opts := range map[string][]nats.Option{
		"nobody": nil, "an analyst": {nats.Token(analyst)}, "a guess": {nats.Token("coc_a_b")}, "the process's own name": {nats.UserInfo(ownUser, "")},
	} {
		if nc, err := nats.Connect(b.ClientURL(), opts...); err == nil {
			nc.Close()
			t.Errorf("%s was let in", name)
		}
	}
	denied := make(chan error, 16)
	nc := must[*nats.Conn](t)(nats.Connect(b.ClientURL(), nats.Token(intake),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err })))
	defer nc.Close()
	js := must[jetstream.JetStream](t)(jetstream.New(nc))
	must[*jetstream.PubAck](t)(js.Publish(t.Context(), "coc.intake.erp", []byte("{}"), jetstream.WithMsgID("1")))
	if ack := must[*jetstream.PubAck](t)(js.Publish(t.Context(), "coc.intake.erp", []byte("{}"), jetstream.WithMsgID("1"))); !ack.Duplicate {
		t.Error("the same id was stored twice")
	}
	for _, subject := range []string{"coc.intake.other", "coc.events.erp", "$JS.API.INFO", "coc.events._control"} {
		if err := nc.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for _, subject := range []string{">", "coc.>", "_HOUSE_*.>"} {
		must[*nats.Subscription](t)(nc.SubscribeSync(subject))
		_ = nc.Flush()
		if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
}
