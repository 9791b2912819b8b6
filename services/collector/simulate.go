package collector

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencoc/coc/services/event"
)

// SimulateOptions says which hoster is made up.
type SimulateOptions struct {
	// Tenants, 1 to 10,000, and Days, 1 to 400, which end at End.
	Tenants, Days int
	// Seed decides everything: the same options give the same events.
	Seed uint64
	// End is cut to the hour; default now.
	End time.Time
	// Zone is the hoster's; default Europe/Amsterdam.
	Zone *time.Location
}

// Validate fills in defaults and refuses what would take for ever.
func (o *SimulateOptions) Validate() error {
	if o.Tenants < 1 || o.Tenants > 10_000 {
		return fmt.Errorf("%d tenants: choose 1 to 10,000", o.Tenants)
	}
	if o.Days < 1 || o.Days > 400 {
		return fmt.Errorf("%d days: choose 1 to 400", o.Days)
	}
	if o.End.IsZero() {
		o.End = time.Now()
	}
	o.End = o.End.Truncate(time.Hour)
	if o.Zone == nil {
		zone, err := time.LoadLocation("Europe/Amsterdam")
		if err != nil {
			return err
		}
		o.Zone = zone
	}
	return nil
}

// Simulate makes up the events of a hoster in order of time: office rhythm,
// tiers, windows with response times, jobs, back-ups, copies of them, connector
// calls, documents, logins. One customer asks for far more copies than fair use
// allows, one window is slower since a version, and some parts of the product
// are used by few tenants. Each event has the label simulated=true. fn gets each
// event, good during the call; its error ends the simulation.
func Simulate(ctx context.Context, o SimulateOptions, fn func(*event.Event) error) error {
	if err := o.Validate(); err != nil {
		return err
	}
	s := newSimulation(o)
	var late []event.Event // of the day before, ending in this one
	for day := range o.Days {
		if err := ctx.Err(); err != nil {
			return err
		}
		events := s.day(day, late)
		end := s.start.Add(time.Duration(day+1) * 24 * time.Hour).UnixMilli()
		late = nil
		for i := range events {
			if events[i].Time >= end {
				late = append(late, events[i])
				continue
			}
			if err := fn(&events[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// SimulateReader gives the same as NDJSON: what an import of format json reads.
// Close it.
func SimulateReader(ctx context.Context, o SimulateOptions) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		out := bufio.NewWriterSize(w, 256<<10)
		var line []byte
		err := Simulate(ctx, o, func(e *event.Event) error {
			line = append(event.AppendJSON(line[:0], e), '\n')
			_, err := out.Write(line)
			return err
		})
		if err == nil {
			err = out.Flush()
		}
		w.CloseWithError(err) // nil is the end
	}()
	return &simulateReader{r, cancel, done}
}

type simulateReader struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func (s *simulateReader) Close() error {
	s.cancel()
	err := s.PipeReader.Close()
	<-s.done
	return err
}

// simulation is a made-up hoster.
type simulation struct {
	o       SimulateOptions
	start   time.Time
	change  int64 // when the new version came, Unix ms
	tenants []simTenant
	out     []event.Event
}

type simTenant struct {
	n          int
	id         string
	tier       *simTier
	datacenter string
	users      []simUser
	copies     float64 // requested back-up copies a day
	connector  int     // connector calls a day
	rare       bool    // uses the parts that few use
}

type simUser struct{ name, ip, session string }

// simTier is a kind of customer: how many people, how much data.
type simTier struct {
	name         string
	share        float64
	users, more  int
	backup, copy float64 // bytes
}

var simTiers = []simTier{
	{"small", 0.55, 2, 6, 4e9, 2e9},
	{"medium", 0.25, 8, 14, 30e9, 8e9},
	{"accountancy_lite", 0.12, 1, 3, 1e9, 1e9},
	{"large", 0.08, 20, 25, 200e9, 40e9},
}

var (
	simFirst = []string{"anna", "bram", "carla", "daan", "eva", "fatima", "gijs", "hanna", "ilse", "jan", "karin", "lars", "mo", "noor", "otto", "petra", "ruben", "sanne", "tom", "vera"}
	simLast  = []string{"jansen", "devries", "vandijk", "bakker", "visser", "smit", "meijer", "mulder", "bos", "vos", "peters", "hendriks", "dekker", "brouwer", "dewit", "dijkstra", "yilmaz", "kok"}
)

func newSimulation(o SimulateOptions) *simulation {
	s := &simulation{o: o, start: o.End.Add(-time.Duration(o.Days) * 24 * time.Hour)}
	s.change = s.start.Add(time.Duration(o.Days) * 12 * time.Hour).UnixMilli()
	r := rand.New(rand.NewPCG(o.Seed, 0))
	for n := range o.Tenants {
		t := simTenant{n: n, id: fmt.Sprintf("t%03d", n+1), datacenter: [...]string{"dc-a", "dc-b"}[r.IntN(2)], tier: pickTier(r)}
		for u := range t.tier.users + r.IntN(t.tier.more) {
			name := simFirst[r.IntN(len(simFirst))] + "." + simLast[r.IntN(len(simLast))]
			if u > 0 && slices.ContainsFunc(t.users, func(x simUser) bool { return x.name == name }) {
				name += itoa(int64(u))
			}
			t.users = append(t.users, simUser{name, fmt.Sprintf("198.18.%d.%d", n%256, 1+u%250), fmt.Sprintf("s-%03d-%03d", n+1, u+1)})
		}
		t.copies = 0.05
		if r.IntN(3) == 0 {
			t.connector = 20 + r.IntN(200)
		}
		t.rare = n%7 == 3 && n < 60 // at most nine tenants: fewer than a release names
		s.tenants = append(s.tenants, t)
	}
	s.tenants[min(4, len(s.tenants)-1)].copies = 3 // far above any allowance
	return s
}

func pickTier(r *rand.Rand) *simTier {
	x := r.Float64()
	for i := range simTiers {
		if x -= simTiers[i].share; x < 0 {
			return &simTiers[i]
		}
	}
	return &simTiers[0]
}

// day makes the events that begin in the nth 24 hours, with those left over
// from the day before, in order of time.
func (s *simulation) day(n int, late []event.Event) []event.Event {
	s.out = append([]event.Event(nil), late...)
	from := s.start.Add(time.Duration(n) * 24 * time.Hour)
	for i := range s.tenants {
		t := &s.tenants[i]
		d := &simDay{s: s, t: t, from: from, r: rand.New(rand.NewPCG(s.o.Seed, uint64(i+1)<<20|uint64(n)))}
		d.people()
		d.jobs()
		d.backups()
		d.copies()
		d.connectors()
	}
	slices.SortStableFunc(s.out, func(a, b event.Event) int { return cmp.Compare(a.Time, b.Time) })
	return s.out
}

// simDay is one tenant's day.
type simDay struct {
	s    *simulation
	t    *simTenant
	from time.Time
	r    *rand.Rand
}

// office is how busy an hour is, 0 to 1.
func office(t time.Time) float64 {
	hours := [24]float64{.01, .01, .01, .01, .01, .02, .05, .25, .75, 1, 1, .95, .6, .85, 1, .95, .8, .45, .15, .1, .08, .06, .03, .02}
	weight := hours[t.Hour()]
	if d := t.Weekday(); d == time.Saturday || d == time.Sunday {
		weight *= 0.08
	}
	return weight
}

// moment returns a time of the day by the office's rhythm; false on a day when
// hardly anybody works and this use falls away.
func (d *simDay) moment() (time.Time, bool) {
	for range 6 {
		t := d.from.Add(time.Duration(d.r.Int64N(int64(24 * time.Hour)))).In(d.s.o.Zone)
		if d.r.Float64() < office(t) {
			return t, true
		}
	}
	return time.Time{}, false
}

// add appends an event of the tenant.
func (d *simDay) add(at time.Time, kind, action, outcome string) *event.Event {
	d.s.out = append(d.s.out, event.Event{
		Time: at.UnixMilli(), Kind: kind, Action: action, Outcome: outcome, TenantID: d.t.id, TenantTier: d.t.tier.name, Datacenter: d.t.datacenter,
		Labels: []event.Label{{Key: "simulated", Value: "true"}},
	})
	return &d.s.out[len(d.s.out)-1]
}

// by says who did it, from where.
func (d *simDay) by(e *event.Event, u *simUser) {
	e.UserName, e.UserType, e.SourceIP, e.SessionID, e.SourceCountry = u.name, "customer", u.ip, u.session, "NL"
}

// milliseconds draws a log-normal duration with the given median; sigma 0.5
// gives 2.3 times the median at 95 %.
func (d *simDay) milliseconds(median, sigma float64) float64 {
	return math.Round(median * math.Exp(sigma*d.r.NormFloat64()))
}
