package bus

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// serverLog gives the embedded server's lines to slog. What the server calls
// fatal is kept for the error of Open: it never ends the process.
type serverLog struct {
	log   *slog.Logger
	mu    sync.Mutex
	fatal string
	// broken: the disk was full when the store wrote, and the store refuses
	// everything until its process restarts. The server tells nobody but this
	// log; publishers would wait in vain.
	broken atomic.Bool
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}

// rebuilds are what the store says of each stream when it starts after a crash:
// it reads the messages themselves instead of its summary of them. Nothing is
// wrong with that, and a dozen warnings at night would say otherwise.
var rebuilds = []string{"Stream state outdated", "Recovering stream state from index errored"}

func (l *serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	level := slog.LevelWarn
	for _, r := range rebuilds {
		if strings.Contains(text, r) {
			level = slog.LevelDebug
		}
	}
	l.log.Log(context.Background(), level, "nats: "+text)
}

func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("nats: " + text)
	if strings.Contains(text, "no space left") || strings.Contains(text, "Critical write error") {
		l.broken.Store(true)
	}
}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == "" {
		l.fatal = fmt.Sprintf(format, v...)
	}
}

func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

func (l *serverLog) fatalText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
