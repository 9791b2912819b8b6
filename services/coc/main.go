package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// version is set by the build from the file VERSION.
var version = "0.0.0-dev"

// CLI is the table of contents: what `coc help` prints.
type CLI struct {
	Up        UpCmd        `cmd:"" group:"run" help:"Run everything in one process, watching this machine."`
	Collector CollectorCmd `cmd:"" group:"run" help:"Run the collector: sources to the bus."`
	Engine    EngineCmd    `cmd:"" group:"run" help:"Run the engine: rules over the bus."`
	Sink      SinkCmd      `cmd:"" group:"run" help:"Run the sink: the bus to ClickHouse."`
	Stats     StatsRunCmd  `cmd:"" group:"run" help:"Run the statistics: reports and anonymous releases."`
	Console   ConsoleCmd   `cmd:"" group:"run" help:"Run the HTTP API."`

	Findings FindingsCmd `cmd:"" group:"look" help:"List findings, or show one in full."`
	Tail     TailCmd     `cmd:"" group:"look" help:"Follow live events, a line each."`
	Tenants  TenantsCmd  `cmd:"" group:"look" help:"Show tenants against their fair-use allowances."`
	Usage    UsageCmd    `cmd:"" group:"look" help:"Show the anonymous usage statistics."`
	SQL      SQLCmd      `cmd:"" name:"sql" group:"look" help:"Ask ClickHouse, read only."`

	Import   ImportCmd   `cmd:"" group:"feed" help:"Bring log files in, of any age."`
	Sources  SourcesCmd  `cmd:"" group:"feed" help:"Check and list sources, try a log line."`
	Simulate SimulateCmd `cmd:"" group:"feed" help:"Make the events of a believable hoster."`

	Rules    RulesCmd    `cmd:"" group:"rules" help:"Check and test rules."`
	Backtest BacktestCmd `cmd:"" group:"rules" help:"Run rules over a file of events, without servers."`

	Ledger     LedgerCmd  `cmd:"" group:"operate" help:"Account for every event, per source and hour."`
	Token      TokenCmd   `cmd:"" group:"operate" help:"Make, list and revoke access tokens."`
	URL        URLCmd     `cmd:"" name:"url" group:"operate" help:"Print the address of the local instance, for scripts."`
	Health     HealthCmd  `cmd:"" group:"operate" help:"Ask an instance whether it is ready; exit 1 if not."`
	Bench      BenchCmd   `cmd:"" group:"operate" help:"Measure this machine: limit, pipeline, engine, intake."`
	VersionCmd VersionCmd `cmd:"" name:"version" group:"operate" help:"Print the version."`
	Help       HelpCmd    `cmd:"" group:"operate" help:"Show this table of contents, or the help of a command."`
}

var groups = []kong.Group{
	{Key: "run", Title: "Run"},
	{Key: "look", Title: "Look"},
	{Key: "feed", Title: "Feed"},
	{Key: "rules", Title: "Rules"},
	{Key: "operate", Title: "Operate"},
}

// Globals is what every command gets.
type Globals struct {
	Ctx            context.Context
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Log            *slog.Logger
	Getenv         func(string) string
	Now            func() time.Time

	parser *kong.Kong
}

// usageError says that the command was called wrongly: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	if code == exitRestart {
		if exe, err := os.Executable(); err == nil {
			err = syscall.Exec(exe, os.Args, os.Environ())
			fmt.Fprintln(os.Stderr, "coc: cannot start again:", err)
		}
		code = 1
	}
	os.Exit(code)
}

// exitRestart is no exit code: main starts the program again in its place.
const exitRestart = -1

// newParser builds the command line's grammar into cli.
func newParser(cli *CLI, out, errs io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(cli,
		kong.Name("coc"),
		kong.Description("Cyber Operations Center: events in, findings and anonymous statistics out."),
		kong.ExplicitGroups(groups),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Writers(out, errs),
		kong.Exit(func(int) {}),
		kong.Vars{"version": version, "data": defaultDataDir(), "listen": defaultListen, "zone": defaultZone},
	)
	if err != nil {
		return nil, err
	}
	parser.Model.HelpFlag.Help = "Show this help."
	return parser, nil
}

// run parses and executes one command line and returns the exit code. It is
// main without the process: tests call it.
func run(ctx context.Context, args, environ []string, in io.Reader, out, errs io.Writer) int {
	var cli CLI
	parser, err := newParser(&cli, out, errs)
	if err != nil {
		fmt.Fprintln(errs, "coc: this build's commands do not fit together:", err)
		return 1
	}
	if err := checkEnvironment(parser, environ); err != nil {
		fmt.Fprintln(errs, "coc:", err)
		return 2
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case len(args) == 1 && args[0] == "--version": // what everybody types first
		args = []string{"version"}
	}
	if asksHelp(args) { // kong prints it while parsing and goes on, since its exit is ours
		_, _ = parser.Parse(args)
		return 0
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(errs, "coc: %s\nSee coc help%s.\n", plainly(err), helpFor(err))
		return 2
	}
	g := &Globals{Ctx: ctx, Stdin: in, Stdout: out, Stderr: errs, Getenv: os.Getenv, Now: time.Now, parser: parser,
		Log: slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	err = k.Run(g)
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errRestart):
		fmt.Fprintln(errs, "coc:", err)
		return exitRestart
	case errors.As(err, &wrong):
		fmt.Fprintln(errs, "coc:", err)
		return 2
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(errs, "coc: stopped")
		return 1
	}
	fmt.Fprintln(errs, "coc:", err)
	return 1
}

func asksHelp(args []string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if a == "--help" || a == "-h" {
			return true
		}
	}
	return false
}

// parserTexts say in plain words what the parser says in its own.
var parserTexts = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`^(--[a-z-]+): expected .* value but got "EOL".*$`), `$1 needs a value`},
	{regexp.MustCompile(`^(--[a-z-]+): expected .* value but got "(-[^"]*)" \(.*$`), `$1 needs a value; one that begins with a dash is written $1=$2`},
	{regexp.MustCompile(`^(--[a-z-]+): expected duration but got ("[^"]*").*$`), `$1: $2 is no length of time: write one such as 90s, 5m or 1h`},
	{regexp.MustCompile(`^(--[a-z-]+): expected a valid \d+ bit u?int but got ("[^"]*").*$`), `$1: $2 is no whole number`},
	{regexp.MustCompile(`^expected "(.*)"$`), `$1 is missing`},
	{regexp.MustCompile(`^expected one of (.*)$`), `what to do is missing: one of $1`},
}

// choices is the parser's refusal of a value that is none of a flag's.
var choices = regexp.MustCompile(`^(--[a-z-]+) must be one of (.*) but got ("[^"]*")$`)

// plainly words an error of the parser for people.
func plainly(err error) string {
	text := err.Error()
	if m := choices.FindStringSubmatch(text); m != nil {
		names := strings.Split(strings.TrimPrefix(strings.ReplaceAll(m[2], `"`, ""), ","), ",")
		last := len(names) - 1
		return fmt.Sprintf("%s: %s is none of %s and %s", m[1], m[3], strings.Join(names[:last], ", "), names[last])
	}
	for _, t := range parserTexts {
		text = t.from.ReplaceAllString(text, t.to)
	}
	return text
}

// helpFor names the command whose help fits a parse error, when it is known.
func helpFor(err error) string {
	var p *kong.ParseError
	if errors.As(err, &p) && p.Context != nil {
		if n := p.Context.Selected(); n != nil {
			return " " + strings.TrimSpace(strings.TrimPrefix(n.FullPath(), "coc"))
		}
	}
	return ""
}

// checkEnvironment refuses COC_… variables that no flag knows: a misspelt one
// would be silently without effect.
func checkEnvironment(parser *kong.Kong, environ []string) error {
	known := []string{envLibrary}
	for _, f := range allFlags(parser.Model.Node) {
		known = append(known, f.Envs...)
	}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "COC_") && !slices.Contains(known, name) {
			return fmt.Errorf("the variable %s is not one that coc knows: unset it, or see `coc help up` for those there are", name)
		}
	}
	return nil
}

func allFlags(n *kong.Node) []*kong.Flag {
	flags := slices.Clone(n.Flags)
	for _, c := range n.Children {
		flags = append(flags, allFlags(c)...)
	}
	return flags
}

// HelpCmd shows the table of contents or one command's help.
type HelpCmd struct {
	Command []string `arg:"" optional:"" help:"The command to explain."`
}

// Run prints the help.
func (c *HelpCmd) Run(g *Globals) error {
	node := g.parser.Model.Node
	words := slices.Clone(c.Command) // parsing again writes into this very command
	for i, word := range words {
		at := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == word })
		if at < 0 {
			guess := ""
			if _, err := g.parser.Parse(words[:i+1]); err != nil { // it knows what is spelt alike
				if _, like, ok := strings.Cut(err.Error(), ", did you mean "); ok {
					guess = ", did you mean " + like
				}
			}
			return usageError{fmt.Errorf("there is no command %q%s; see coc help", strings.Join(words[:i+1], " "), guess)}
		}
		node = node.Children[at]
	}
	_, _ = g.parser.Parse(append(words, "--help")) // prints, and then misses what the command requires
	return nil
}

// VersionCmd prints the version.
type VersionCmd struct{}

// Run prints the version.
func (c *VersionCmd) Run(g *Globals) error {
	_, err := fmt.Fprintln(g.Stdout, "coc", version)
	return err
}
