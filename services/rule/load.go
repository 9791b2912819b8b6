package rule

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/opencoc/coc/services/event"
)

// Options say how a set is read.
type Options struct {
	// Zone is the hoster's: days, nights and hours of rules are its. Nil is UTC.
	// It must have a name of the tz database, since it is part of a packed set.
	Zone *time.Location
}

// Set is a checked and compiled set of rules with what stands beside them. It
// is immutable and may be shared.
type Set struct {
	rules  []*Rule // by id
	data   *data
	zone   *time.Location
	packed []byte
	digest string
	index  *index
	fields event.FieldSet
}

// Rules returns all rules in order of their ids, disabled ones too.
func (s *Set) Rules() []*Rule { return slices.Clone(s.rules) }

// Rule returns a rule by its id, or nil.
func (s *Set) Rule(id string) *Rule {
	i, ok := slices.BinarySearchFunc(s.rules, id, func(r *Rule, id string) int { return strings.Compare(r.ID, id) })
	if !ok {
		return nil
	}
	return s.rules[i]
}

// Allowances returns the allowances in order of their names.
func (s *Set) Allowances() []Allowance { return slices.Clone(s.data.allowances) }

// Exceptions returns the exceptions in the order of their file.
func (s *Set) Exceptions() []Exception { return slices.Clone(s.data.exceptions) }

// Lists returns the lists in order of their names.
func (s *Set) Lists() []List {
	out := make([]List, 0, len(s.data.lists))
	for _, l := range s.data.lists {
		out = append(out, l.List)
	}
	slices.SortFunc(out, func(a, b List) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Zone is the hoster's zone.
func (s *Set) Zone() *time.Location { return s.zone }

// Bytes returns the set as one block that Open reads: the files as they were
// read and the zone. The same files give the same bytes.
func (s *Set) Bytes() []byte { return bytes.Clone(s.packed) }

// Digest is the SHA-256 of Bytes in hexadecimal: the set's name on the bus.
func (s *Set) Digest() string { return s.digest }

// pack is the form of Bytes.
type pack struct {
	Version int               `json:"version"`
	Zone    string            `json:"zone"`
	Files   map[string]string `json:"files"` // json sorts them
}

const packVersion = 1

// LoadDir loads the set of a folder. An error is Errors when the files are
// wrong, with all that is wrong in them.
func LoadDir(dir string, o Options) (*Set, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("rules cannot be read from %s: %w; give the folder that holds the rules", dir, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("rules cannot be read from %s: it is a file; give the folder that holds the rules", dir)
	}
	return Load(os.DirFS(dir), o)
}

// Load loads the set of a file system, as LoadDir.
func Load(fsys fs.FS, o Options) (*Set, error) {
	zone := o.Zone
	if zone == nil {
		zone = time.UTC
	}
	files := map[string]string{}
	total := 0
	err := fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := len(e.Name()) > 1 && strings.HasPrefix(e.Name(), ".")
		if e.IsDir() {
			if hidden {
				return fs.SkipDir
			}
			return nil
		}
		if hidden || !isRuleFile(name) {
			return nil
		}
		info, err := fs.Stat(fsys, name) // through a link
		switch {
		case err != nil:
			return err
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no file", name)
		case info.Size() > 16*limitFileBytes:
			return fmt.Errorf("%s has %d bytes; at most %d are read", name, info.Size(), 16*limitFileBytes)
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		files[name] = string(data)
		if total += len(data); total > limitSetBytes || len(files) > limitFiles {
			return fmt.Errorf("the set is larger than %d files or %d bytes", limitFiles, limitSetBytes)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("rules cannot be read: %w", err)
	}
	return load(files, zone)
}

func isRuleFile(name string) bool {
	ext := path.Ext(name)
	return ext == ".yaml" || ext == ".yml" || ext == ".txt" && strings.HasPrefix(name, "lists/")
}

// Open reads a packed set. The bytes may come from anywhere.
func Open(data []byte) (*Set, error) {
	if len(data) > 2*limitSetBytes {
		return nil, fmt.Errorf("a packed rule set of %d bytes is larger than any that is written", len(data))
	}
	var p pack
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("not a packed rule set: %w", err)
	}
	if p.Version != packVersion {
		return nil, fmt.Errorf("a packed rule set of version %d; this build reads version %d: upgrade the older program", p.Version, packVersion)
	}
	if len(p.Files) > limitFiles {
		return nil, fmt.Errorf("a packed rule set of %d files; at most %d are read", len(p.Files), limitFiles)
	}
	zone, err := namedZone(p.Zone)
	if err != nil {
		return nil, err
	}
	return load(p.Files, zone)
}

func namedZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("the zone %q is not in the tz database: give one like Europe/Amsterdam", name)
	}
	return zone, nil
}

// loader holds what reading a set gathers.
type loader struct {
	zone           *time.Location
	errs           Errors
	data           *data
	language       *language
	rules          []*Rule
	ids            map[string]string // rule id to file
	exceptionRules []reference
	exceptionsDoc  *document
}

// reference is a rule id that stands somewhere and must exist.
type reference struct {
	d    *document
	node ast.Node
	id   string
}

func (l *loader) document(file string) *document { return &document{file: file, errs: &l.errs} }

func load(files map[string]string, zone *time.Location) (*Set, error) {
	if _, err := namedZone(zone.String()); err != nil {
		return nil, err
	}
	l := &loader{zone: zone, ids: map[string]string{}, data: &data{lists: map[string]*list{}}}
	l.language = newLanguage(l.data, zone)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	// Lists and allowances come first: expressions name them.
	for _, n := range names {
		if strings.HasPrefix(n, "lists/") {
			l.readList(n, []byte(files[n]))
		}
	}
	if content, ok := files["allowances.yaml"]; ok {
		l.readAllowances("allowances.yaml", []byte(content))
	}
	for _, n := range names {
		if !strings.HasPrefix(n, "lists/") && n != "allowances.yaml" && n != "exceptions.yaml" {
			l.readRule(n, []byte(files[n]))
		}
	}
	if content, ok := files["exceptions.yaml"]; ok {
		l.readExceptions("exceptions.yaml", []byte(content))
	}
	l.bindExceptions()
	if len(l.errs) > 0 {
		return nil, l.errs.sorted()
	}
	if len(l.rules) == 0 {
		return nil, errors.New("the folder holds no rules: a rule is a file that ends in .yaml")
	}
	return l.finish(files)
}

// bindExceptions compiles the exceptions and gives them to their rules.
func (l *loader) bindExceptions() {
	for _, r := range l.exceptionRules {
		if l.ids[r.id] == "" {
			ids := make([]string, 0, len(l.ids))
			for id := range l.ids {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			r.d.failAt(r.node, meant(r.id, ids), "there is no rule %q", shorten(r.id))
		}
	}
	for i := range l.data.exceptions {
		x := &l.data.exceptions[i]
		if x.node == nil {
			continue
		}
		d := l.exceptionsDoc
		v := l.expression(d, x.node, x.When, inMatch)
		if v == nil {
			continue
		}
		p, err := l.language.compile(v, v.node)
		if err != nil {
			l.place(d, x.node, x.When, problemOf(err))
			continue
		}
		for _, r := range l.rules {
			if r.ID == x.Rule {
				r.exceptions = append(r.exceptions, exception{p, x.Expires.UnixMilli()})
			}
		}
		x.node = nil
	}
}

func (l *loader) finish(files map[string]string) (*Set, error) {
	packed, err := json.Marshal(pack{Version: packVersion, Zone: l.zone.String(), Files: files})
	if err != nil {
		return nil, fmt.Errorf("the set cannot be packed: %w", err)
	}
	sum := sha256.Sum256(packed)
	slices.SortFunc(l.rules, func(a, b *Rule) int { return strings.Compare(a.ID, b.ID) })
	s := &Set{rules: l.rules, data: l.data, zone: l.zone, packed: packed, digest: hex.EncodeToString(sum[:])}
	for i, r := range s.rules {
		r.index = i
	}
	s.index, s.fields = newIndex(s.rules), fieldsOf(s.rules)
	return s, nil
}

// Fields are those that evaluating the set reads: a batch decoded with them
// alone gives the same findings.
func (s *Set) Fields() event.FieldSet { return s.fields }

// fieldsOf collects what the rules read, and what every hit needs.
func fieldsOf(rules []*Rule) event.FieldSet {
	var all need
	for _, f := range []int{event.FTime, event.FID, event.FCollector, event.FEpoch, event.FSeq, event.FTenantID} {
		all |= needs(f)
	}
	for _, r := range rules {
		if r.Status == "disabled" {
			continue
		}
		for i := range r.conjuncts {
			r.conjuncts[i].eachField(func(f int) { all |= needs(f) })
		}
		if r.residual != nil {
			all |= r.residual.need
		}
		for i := range r.exceptions {
			all |= r.exceptions[i].when.need
		}
		for i := range r.groups {
			all |= needs(r.groups[i].field)
		}
		if w := r.spec; w != nil {
			all |= w.ownNeed
			for i := range w.values {
				all |= needs(w.values[i].field)
			}
			for _, f := range w.distincts {
				all |= needs(f)
			}
			for _, p := range w.shares {
				all |= p.need
			}
		}
	}
	return event.FieldSet(all) & event.AllFields
}
