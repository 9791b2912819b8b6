package collector

import (
	"math"
	"time"
)

// simWindow is a window of the product, with its usual response time.
type simWindow struct {
	name   string
	weight int
	median float64 // ms
	rare   bool    // used by few tenants
}

var simWindows = []simWindow{
	{"Eigenschappen Medewerker", 22, 420, false},
	{"Eigenschappen Verkooprelatie", 26, 460, false},
	{"Eigenschappen Inkooprelatie", 16, 440, false},
	{"Verkoopfactuur", 14, 520, false},
	{"Urenregistratie", 14, 300, false},
	{"Grootboekkaart", 8, 700, false},
	{"Loonaangifte Caribisch Nederland", 6, 600, true},
	{"Projectbegroting bouw", 6, 640, true},
}

// slowWindow is slower in slowService since the new version.
const (
	slowWindow  = "Eigenschappen Verkooprelatie"
	slowService = "insite"
	slowFactor  = 2.6
)

func (d *simDay) window() *simWindow {
	total := 0
	for i := range simWindows {
		if d.t.rare || !simWindows[i].rare {
			total += simWindows[i].weight
		}
	}
	x := d.r.IntN(total)
	for i := range simWindows {
		w := &simWindows[i]
		if w.rare && !d.t.rare {
			continue
		}
		if x -= w.weight; x < 0 {
			return w
		}
	}
	return &simWindows[0]
}

// service is the desktop client or the web client, and its version at a time.
func (d *simDay) service(at time.Time) (name, version string) {
	name = "profit"
	if d.r.IntN(5) < 2 {
		name = "insite"
	}
	if at.UnixMilli() >= d.s.change {
		return name, "12.1.0"
	}
	return name, "12.0.3"
}

// people log in, open windows, fetch documents and export.
func (d *simDay) people() {
	for i := range d.t.users {
		u := &d.t.users[i]
		if d.r.IntN(5) == 0 {
			continue // does something else today
		}
		if at, ok := d.moment(); ok {
			d.login(at, u)
		}
		for range 3 + d.r.IntN(12) {
			if at, ok := d.moment(); ok {
				d.open(at, u)
			}
		}
		if at, ok := d.moment(); ok && d.r.IntN(4) == 0 {
			e := d.add(at, kindUser, "document_downloaded", success)
			d.by(e, u)
			e.ServiceName, e.ServiceVersion = d.service(at)
			e.ResourceType, e.ResourceName = "document", "Dossieritem"
			e.SetBytes(int64(d.milliseconds(180_000, 1)))
		}
		if at, ok := d.moment(); ok && d.r.IntN(12) == 0 {
			e := d.add(at, kindUser, "data_exported", success)
			d.by(e, u)
			e.ServiceName, e.ServiceVersion = d.service(at)
			e.ResourceType, e.ResourceName, e.ResourceTitle = "report", "Analyse", "Omzet per klant"
			e.SetBytes(int64(d.milliseconds(900_000, 1)))
			e.SetDuration(d.milliseconds(2500, 0.6))
		}
	}
}

func (d *simDay) login(at time.Time, u *simUser) {
	for d.r.IntN(25) == 0 { // a slip of the finger
		e := d.add(at, kindUser, "login", failure)
		d.by(e, u)
		e.ServiceName, e.ServiceVersion = d.service(at)
		at = at.Add(time.Duration(5+d.r.IntN(20)) * time.Second)
	}
	e := d.add(at, kindUser, "login", success)
	d.by(e, u)
	e.ServiceName, e.ServiceVersion = d.service(at)
	e.SetDuration(d.milliseconds(600, 0.4))
}

func (d *simDay) open(at time.Time, u *simUser) {
	w := d.window()
	outcome := success
	if d.r.IntN(400) == 0 {
		outcome = failure
	}
	e := d.add(at, kindUser, "window_opened", outcome)
	d.by(e, u)
	e.ServiceName, e.ServiceVersion = d.service(at)
	e.ResourceType, e.ResourceName = "window", w.name
	median := w.median
	if w.name == slowWindow && e.ServiceName == slowService && at.UnixMilli() >= d.s.change {
		median *= slowFactor
	}
	ms := d.milliseconds(median, 0.5)
	e.SetDuration(ms)
	e.SetServerDuration(math.Round(ms * (0.3 + 0.4*d.r.Float64())))
}

// simJobs are the heavy works that are queued.
var simJobs = []struct {
	name   string
	median float64 // ms
}{
	{"Facturatie", 40_000}, {"Aanmaningen", 25_000}, {"Salarisverwerking", 120_000}, {"Analyse omzet", 15_000},
}

func (d *simDay) jobs() {
	n := 1 + len(d.t.users)/6
	for range n {
		at, ok := d.moment()
		if !ok {
			continue
		}
		j := simJobs[d.r.IntN(len(simJobs))]
		u := &d.t.users[d.r.IntN(len(d.t.users))]
		e := d.add(at, kindUser, "job_queued", success)
		d.by(e, u)
		e.ServiceName, e.ServiceVersion = d.service(at)
		e.ResourceType, e.ResourceName = "job", j.name
		service, version := e.ServiceName, e.ServiceVersion
		wait, took := d.milliseconds(4000, 0.8), d.milliseconds(j.median, 0.6)
		outcome := success
		if d.r.IntN(80) == 0 {
			outcome = failure
		}
		e = d.add(at.Add(time.Duration(wait+took)*time.Millisecond), kindSystem, "job_finished", outcome)
		e.ServiceName, e.ServiceVersion = service, version
		e.ResourceType, e.ResourceName = "job", j.name
		e.SetDuration(wait + took)
		e.SetServerDuration(took)
	}
}

// backups run four times a day by the local clock; the night's is kept longer.
func (d *simDay) backups() {
	for hour := range 24 {
		at := d.from.Add(time.Duration(hour) * time.Hour).In(d.s.o.Zone)
		if at.Hour()%6 != 1 {
			continue
		}
		at = at.Add(time.Duration(d.t.n%50) * time.Minute).Add(time.Duration(d.r.IntN(120)) * time.Second)
		outcome := success
		if d.r.IntN(2000) == 0 {
			outcome = failure
		}
		e := d.add(at, kindSystem, "backup_finished", outcome)
		e.ServiceName, e.ResourceType, e.ResourceName = "backup", "backup", "production"
		e.SetBytes(int64(d.t.tier.backup * (0.9 + 0.2*d.r.Float64())))
		e.SetDuration(d.milliseconds(240_000, 0.4))
		schedule := "day"
		if at.Hour() < 6 {
			schedule = "night"
		}
		e.SetLabel("schedule", schedule)
	}
}

// copies of back-ups are asked for by customers.
func (d *simDay) copies() {
	n := int(d.t.copies)
	if d.r.Float64() < d.t.copies-float64(n) {
		n++
	}
	for range n {
		at := d.from.Add(time.Duration(d.r.Int64N(int64(24 * time.Hour))))
		u := &d.t.users[0]
		e := d.add(at, kindUser, "backup_copy_requested", success)
		d.by(e, u)
		e.ServiceName, e.ServiceVersion = d.service(at)
		e.ResourceType, e.ResourceName = "backup", "production"
		e.SetBytes(int64(d.t.tier.copy * (0.8 + 0.4*d.r.Float64())))
	}
}

// connectors call day and night.
func (d *simDay) connectors() {
	for range d.t.connector {
		at := d.from.Add(time.Duration(d.r.Int64N(int64(24 * time.Hour))))
		outcome := success
		if d.r.IntN(300) == 0 {
			outcome = failure
		}
		e := d.add(at, kindUser, "connector_call", outcome)
		e.UserName, e.UserType = "koppeling-"+d.t.id, "service"
		e.ServiceName = "connector"
		if _, version := d.service(at); version != "" {
			e.ServiceVersion = version
		}
		e.ResourceType, e.ResourceName = "connector", "GetConnector Medewerkers"
		if d.t.rare {
			e.ResourceName = "UpdateConnector Projecten"
		}
		e.SetDuration(d.milliseconds(220, 0.7))
		e.SetBytes(int64(d.milliseconds(12_000, 1)))
	}
}
