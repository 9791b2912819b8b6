package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"
)

// BenchCmd measures this machine. Each part runs in a process of its own, so
// that its memory is its own, one after the other, and all within one call: on a
// shared machine only the ratios of one run say something.
type BenchCmd struct {
	Events  int    `default:"2000000" placeholder:"N" help:"Events for limit and pipeline, 50,000 to 10,000,000 (default: ${default})."`
	Part    string `enum:"all,limit,pipeline,engine,intake,messages,memory" default:"all" help:"Only one part: limit, pipeline, engine, intake, messages or memory (default: ${default})."`
	Rules   int    `default:"1000" placeholder:"N" help:"Rules of the pipeline, 1 to 10,000 (default: ${default})."`
	Profile string `placeholder:"FILE" help:"Write a CPU profile of the one part given by --part (default: none)."`
	Work    string `env:"COC_BENCH_DIR" placeholder:"DIR" help:"Folder for the bench's data, emptied afterwards (default: a temporary one)."`
}

// benchReport is what the bench prints. Rates are per second of wall time.
type benchReport struct {
	Version string `json:"version"`
	CPUs    int    `json:"cpus"`
	Events  int    `json:"events"`
	// Limit is the raw insert of prepared batches into ClickHouse alone, measured
	// before and after the pipeline.
	Limit    []benchRate `json:"limit,omitempty"`
	Pipeline *benchRate  `json:"pipeline,omitempty"`
	// Share is the pipeline's rate over the mean of the limits.
	Share    float64       `json:"pipeline_share_of_limit,omitempty"`
	Engine   []benchEngine `json:"engine,omitempty"`
	Intake   *benchIntake  `json:"intake,omitempty"`
	Messages *benchRate    `json:"messages,omitempty"`
	// Idle and Busy are the memory of a coc up of its own: settled, and the peak
	// while a large file is imported as fast as it goes.
	Idle int64 `json:"coc_up_idle_bytes,omitempty"`
	Busy int64 `json:"coc_up_flat_out_bytes,omitempty"`
}

type benchRate struct {
	Count     int     `json:"count"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	// PeakBytes is the most memory the process had, its PreparedBytes of input
	// included.
	PeakBytes     int64 `json:"peak_memory_bytes,omitempty"`
	PreparedBytes int64 `json:"prepared_bytes,omitempty"`
	Rules         int   `json:"rules,omitempty"`
}

type benchEngine struct {
	Rules      int     `json:"rules"`
	NsPerEvent float64 `json:"ns_per_event"` // decoding included, one core
	// Matches is how many rules an event matches, VMPerEvent how often the
	// expression machine had to be asked.
	Matches    float64 `json:"matches_per_event"`
	VMPerEvent float64 `json:"vm_runs_per_event"`
}

type benchIntake struct {
	Events        int     `json:"events"`
	CPUNsPerEvent float64 `json:"cpu_ns_per_event"` // of the whole process, NATS included
	PerSecond     float64 `json:"per_second"`
}

func newRate(count int, took time.Duration) benchRate {
	return benchRate{Count: count, Seconds: took.Seconds(), PerSecond: float64(count) / took.Seconds(), PeakBytes: peakMemory("self")}
}

// Run measures and prints one JSON object.
func (c *BenchCmd) Run(g *Globals) error {
	if c.Events < 50_000 || c.Events > 10_000_000 || c.Rules < 1 || c.Rules > 10_000 {
		return usageError{errors.New("--events takes 50,000 to 10,000,000, --rules 1 to 10,000")}
	}
	r := benchReport{Version: version, CPUs: runtime.NumCPU(), Events: c.Events}
	if c.Part != "all" {
		if err := c.part(g, &r); err != nil {
			return err
		}
		return printReport(g.Stdout, r)
	}
	for _, part := range []string{"limit", "pipeline", "limit", "engine", "intake", "messages", "memory"} {
		fmt.Fprintf(g.Stderr, "measuring %s …\n", part)
		if err := c.child(g, part, &r); err != nil {
			return err
		}
	}
	var sum float64
	for _, l := range r.Limit {
		sum += l.PerSecond
	}
	r.Share = r.Pipeline.PerSecond / (sum / float64(len(r.Limit)))
	return printReport(g.Stdout, r)
}

func printReport(out io.Writer, r benchReport) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// child runs one part in a process of its own and adds its figures to r.
func (c *BenchCmd) child(g *Globals, part string, r *benchReport) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program to start it again: %w", err)
	}
	args := []string{"bench", "--part", part, "--events", strconv.Itoa(c.Events), "--rules", strconv.Itoa(c.Rules)}
	if c.Work != "" {
		args = append(args, "--work", c.Work)
	}
	cmd := exec.CommandContext(g.Ctx, exe, args...)
	cmd.Stderr = g.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("part %s of the bench: %w", part, err)
	}
	if err := r.add(out); err != nil {
		return fmt.Errorf("part %s of the bench printed no figures: %w", part, err)
	}
	return nil
}

// add takes in the figures of one part; each measurement of the limit counts.
func (r *benchReport) add(part []byte) error {
	limits := r.Limit
	r.Limit = nil // or the decoder would write over the figures of the part before
	err := json.Unmarshal(part, r)
	r.Limit = append(limits, r.Limit...)
	return err
}

// part measures one part in this process.
func (c *BenchCmd) part(g *Globals, r *benchReport) error {
	dir, err := os.MkdirTemp(c.Work, "coc-bench-")
	if err != nil {
		return fmt.Errorf("cannot make a folder for the bench: %w; give one with --work", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(g.Ctx, 10*time.Minute)
	defer cancel()
	if c.Profile != "" {
		f, err := os.Create(c.Profile)
		if err != nil {
			return fmt.Errorf("cannot write the profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("cannot start the profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	b := &bench{cmd: c, g: g, dir: dir}
	return map[string]func(context.Context, *benchReport) error{
		"limit": b.limit, "pipeline": b.pipeline, "engine": b.engine, "intake": b.intake, "messages": b.messages, "memory": b.memory,
	}[c.Part](ctx, r)
}
