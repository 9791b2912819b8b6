package rule

import (
	"math"
	"reflect"
	"time"
	"unsafe"

	"github.com/expr-lang/expr/vm"

	"github.com/opencoc/coc/services/event"
)

// env is what an expression sees: flat fields, no methods, no pointers. The
// names are the event's columns; the vetting of expressions.go rewrites
// user.name to user_name before the type check. Numbers that are absent are 0.
type env struct {
	Time           int64   `expr:"time"`
	Received       int64   `expr:"received"`
	Kind           string  `expr:"kind"`
	Action         string  `expr:"action"`
	Outcome        string  `expr:"outcome"`
	Message        string  `expr:"message"`
	Source         string  `expr:"event_source"`
	ID             string  `expr:"event_id"`
	Marks          string  `expr:"event_marks"`
	Collector      string  `expr:"collector_id"`
	Epoch          int64   `expr:"collector_epoch"`
	Seq            int64   `expr:"collector_seq"`
	TenantID       string  `expr:"tenant_id"`
	TenantTier     string  `expr:"tenant_tier"`
	UserName       string  `expr:"user_name"`
	UserHash       string  `expr:"user_hash"`
	UserType       string  `expr:"user_type"`
	SessionID      string  `expr:"session_id"`
	SourceIP       string  `expr:"source_ip"`
	SourceCountry  string  `expr:"source_country"`
	Datacenter     string  `expr:"datacenter"`
	HostName       string  `expr:"host_name"`
	ServiceName    string  `expr:"service_name"`
	ServiceVersion string  `expr:"service_version"`
	ResourceType   string  `expr:"resource_type"`
	ResourceName   string  `expr:"resource_name"`
	ResourceTitle  string  `expr:"resource_title"`
	Ticket         string  `expr:"ticket"`
	ProcessName    string  `expr:"process_name"`
	ProcessPID     int64   `expr:"process_pid"`
	ProcessParent  string  `expr:"process_parent"`
	Executable     string  `expr:"process_executable"`
	CommandLine    string  `expr:"process_command_line"`
	Duration       float64 `expr:"duration"`
	ServerDuration float64 `expr:"server_duration"`
	Bytes          int64   `expr:"bytes"`
	Value          float64 `expr:"value"`

	HasPID            bool `expr:"has_process_pid"`
	HasDuration       bool `expr:"has_duration"`
	HasServerDuration bool `expr:"has_server_duration"`
	HasBytes          bool `expr:"has_bytes"`
	HasValue          bool `expr:"has_value"`

	// Local is the event's time on the hoster's clock.
	Local Local `expr:"local_"`
	// Labels are read by functions made for one key each.
	Labels labels `expr:"labels_"`

	// Slots of the aggregates of a condition: whole numbers and the others.
	N0, N1, N2, N3, N4, N5, N6, N7, N8, N9, N10, N11, N12, N13, N14, N15 int
	X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15 float64
}

type labels []event.Label

// need is the set of fields that an expression reads: bit i is event.Fields[i].
type need uint64

const (
	needLocal need = 1 << 62
	needAll   need = math.MaxUint64
)

func needs(field int) need { return 1 << field }

// where each event field stands in env, found once from the tags: texts,
// whole numbers and the others by offset.
var envOffset = envOffsets()

func envOffsets() (offsets [len(event.Fields)]uintptr) {
	t := reflect.TypeFor[env]()
	byTag := map[string]reflect.StructField{}
	for i := range t.NumField() {
		byTag[t.Field(i).Tag.Get("expr")] = t.Field(i)
	}
	for i := range event.Fields {
		if i == event.FLabels {
			continue
		}
		offsets[i] = byTag[flatName(i)].Offset
	}
	return offsets
}

func flatName(field int) string {
	b := []byte(event.Fields[field].Name)
	for i, c := range b {
		if c == '.' {
			b[i] = '_'
		}
	}
	return string(b)
}

func (e *env) text(field int) *string {
	return (*string)(unsafe.Add(unsafe.Pointer(e), envOffset[field]))
}
func (e *env) int(field int) *int64 {
	return (*int64)(unsafe.Add(unsafe.Pointer(e), envOffset[field]))
}
func (e *env) float(field int) *float64 {
	return (*float64)(unsafe.Add(unsafe.Pointer(e), envOffset[field]))
}

func (e *env) setHas(field int, ok bool) {
	switch field {
	case event.FProcessPID:
		e.HasPID = ok
	case event.FDuration:
		e.HasDuration = ok
	case event.FServerDuration:
		e.HasServerDuration = ok
	case event.FBytes:
		e.HasBytes = ok
	case event.FValue:
		e.HasValue = ok
	}
}

// machine runs compiled expressions over one env. expr wants its environment
// as a struct by value in an interface (a pointer costs five times as much per
// field); boxing one per event would be the only allocation of an evaluation,
// so the box is made once and written in place. Nothing reads the box while it
// is written, and what a run returns is copied out before the next fill.
type machine struct {
	vm    vm.VM
	boxed any
	env   *env // the inside of boxed
	zone  *time.Location

	batch  *event.Batch
	row    int
	filled need
	runs   int64
}

func newMachine(zone *time.Location) *machine {
	m := &machine{boxed: env{}, env: new(env), zone: zone}
	// The box must be memory of our own: the compiler gives every empty struct
	// the same read-only zeros.
	(*[2]unsafe.Pointer)(unsafe.Pointer(&m.boxed))[1] = unsafe.Pointer(m.env)
	m.vm.MemoryBudget = limitRunMemory
	return m
}

// at moves to a row; fields are filled when an expression needs them.
func (m *machine) at(b *event.Batch, row int) {
	if m.batch != b || m.row != row {
		m.batch, m.row, m.filled = b, row, 0
	}
}

// leave forgets the batch, whose texts die with it.
func (m *machine) leave() {
	*m.env = env{}
	m.batch, m.row, m.filled = nil, -1, 0
	clear(m.vm.Stack[:cap(m.vm.Stack)])
}

func (m *machine) fill(n need) {
	n &^= m.filled
	if n == 0 {
		return
	}
	m.filled |= n
	for i := range event.Fields {
		if n&needs(i) == 0 {
			continue
		}
		switch event.Fields[i].Type {
		case event.Dict, event.Text:
			*m.env.text(i) = m.batch.Text(i, m.row)
		case event.Time, event.Int:
			v, ok := m.batch.Int(i, m.row)
			*m.env.int(i) = v
			m.env.setHas(i, ok)
		case event.Float:
			v, ok := m.batch.Float(i, m.row)
			*m.env.float(i) = v
			m.env.setHas(i, ok)
		case event.Map:
			m.env.Labels = m.batch.Labels(m.row, m.env.Labels[:0])
		}
	}
	if n&needLocal != 0 {
		t, _ := m.batch.Int(event.FTime, m.row)
		m.env.Local = localTime(t, m.zone)
	}
}

// is runs a boolean expression at the present row.
func (m *machine) is(p *program) (bool, error) {
	m.fill(p.need)
	return m.run(p)
}

func (m *machine) run(p *program) (bool, error) {
	m.runs++
	out, err := m.vm.Run(p.code, m.boxed)
	if err != nil {
		return false, err
	}
	ok, _ := out.(bool)
	return ok, nil
}
