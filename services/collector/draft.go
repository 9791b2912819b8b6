package collector

import "github.com/opencoc/coc/services/event"

// draft is an event on its way in, with what must not be kept of it.
type draft struct {
	event.Event
	// names are people's names, besides user.name, that the parser saw in the
	// line: whom sudo became, whom useradd created. Sealing replaces them in all
	// texts that are kept.
	names []string
	// times is how often it happened, as "message repeated" says; 0 is once.
	times int
	// sealed says that nothing in it names a person any more but user.name;
	// secrets and cut count what sealing changed.
	sealed       bool
	secrets, cut int
}

// rows is how many events the draft becomes.
func (d *draft) rows() int { return max(1, d.times) }

// person notes a further name that the line holds.
func (d *draft) person(name string) {
	if len(name) < minName || name == d.UserName || len(d.names) >= limitNames {
		return
	}
	for _, n := range d.names {
		if n == name {
			return
		}
	}
	d.names = append(d.names, name)
}

// what sets the four words by which rules find an event.
func (d *draft) what(kind, action, outcome string) {
	d.Kind, d.Action, d.Outcome = kind, action, outcome
}

// label sets a label unless the value is empty.
func (d *draft) label(key, value string) {
	if value != "" {
		d.SetLabel(key, value)
	}
}

// Kinds and outcomes of an event.
const (
	kindSystem  = "system"
	kindProcess = "process"
	kindUser    = "user"

	success = "success"
	failure = "failure"
	unknown = "unknown"
)

// actionLine is a line that nobody understood: kept as it is.
const actionLine = "log_line"
