package collector

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"

	"github.com/opencoc/coc/services/event"
)

// hostEvery is how often a host is measured by default.
const hostEvery = 10 * time.Second

// hostProbe is one thing that is measured of a machine.
type hostProbe struct {
	name    string
	measure func(h *hostReader, ctx context.Context) error
}

// hostProbes is the list of all that is measured. One that fails does not keep
// the others from being measured.
var hostProbes = []hostProbe{
	{"host_cpu", (*hostReader).cpu},
	{"host_load", (*hostReader).load},
	{"host_memory", (*hostReader).memory},
	{"host_disk", (*hostReader).disks},
	{"host_network", (*hostReader).network},
	{"host_uptime", (*hostReader).uptime},
}

// hostReader measures this machine. One goroutine at a time.
type hostReader struct {
	s      *sourceState
	host   string
	every  time.Duration
	drafts []draft

	cpuBefore  *cpu.TimesStat
	nicsBefore map[string]net.IOCountersStat
	nicsAt     time.Time
	cores      int
}

func startHost(c *Collector, s *sourceState) func(context.Context) error {
	return func(ctx context.Context) error {
		h := &hostReader{s: s, host: hostName(s), every: s.Every}
		if h.every == 0 {
			h.every = hostEvery
		}
		pack := s.packer()
		h.measure(ctx) // rates need two readings: the first are told a second later
		s.idle()
		if sleep(ctx, time.Second) != nil {
			return nil
		}
		tick := time.NewTicker(h.every)
		defer tick.Stop()
		for {
			h.measure(ctx)
			if err := pack.add(ctx, h.drafts, nil, nil, 0); err != nil {
				return ignoreEnd(ctx, err)
			}
			if err := pack.flush(ctx); err != nil {
				return ignoreEnd(ctx, err)
			}
			s.idle()
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

// hostName is what events of this machine are named by.
func hostName(s *sourceState) string {
	if s.Host != "" {
		return s.Host
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// ignoreEnd takes away the error that is only the end.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// measure fills drafts. What does not work on this machine is named in the
// source's state.
func (h *hostReader) measure(ctx context.Context) {
	h.drafts = h.drafts[:0]
	var failing []string
	for _, p := range hostProbes {
		if err := p.measure(h, ctx); err != nil {
			failing = append(failing, fmt.Sprintf("%s: %v", p.name, err))
		}
	}
	detail := fmt.Sprintf("every %v", h.every)
	if len(failing) > 0 {
		detail += "; not measured: " + strings.Join(failing, "; ")
	}
	h.s.set(sourceRunning, detail)
}

// gauge adds an event; the next calls set what it measures.
func (h *hostReader) gauge(action string, value float64) *draft {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		value = 0
	}
	h.drafts = append(h.drafts, draft{Event: event.Event{Time: h.s.c.now(), Kind: kindSystem, Action: action, Outcome: success, HostName: h.host}})
	d := &h.drafts[len(h.drafts)-1]
	d.SetValue(math.Round(value*1000) / 1000)
	for k, v := range h.s.Labels {
		d.label(k, v)
	}
	return d
}

// cpu: value is the share in use since the reading before, per cent of all
// cores.
func (h *hostReader) cpu(ctx context.Context) error {
	times, err := cpu.TimesWithContext(ctx, false)
	if err != nil {
		return err
	}
	if len(times) == 0 {
		return errors.New("no times")
	}
	now, before := times[0], h.cpuBefore
	h.cpuBefore = &now
	if before == nil {
		return nil
	}
	total := cpuTotal(&now) - cpuTotal(before)
	idle := now.Idle + now.Iowait - before.Idle - before.Iowait
	if total <= 0 {
		return nil
	}
	d := h.gauge("host_cpu", 100*max(0, total-idle)/total)
	d.label("iowait_percent", percent(now.Iowait-before.Iowait, total))
	d.label("system_percent", percent(now.System-before.System, total))
	d.label("steal_percent", percent(now.Steal-before.Steal, total))
	return nil
}

func cpuTotal(t *cpu.TimesStat) float64 {
	return t.User + t.System + t.Idle + t.Nice + t.Iowait + t.Irq + t.Softirq + t.Steal
}

func percent(part, whole float64) string { return fmt.Sprintf("%.1f", 100*max(0, part)/whole) }

// load: value is the one-minute load average.
func (h *hostReader) load(ctx context.Context) error {
	l, err := load.AvgWithContext(ctx)
	if err != nil {
		return err
	}
	if h.cores == 0 {
		if h.cores, err = cpu.CountsWithContext(ctx, true); err != nil {
			return err
		}
	}
	d := h.gauge("host_load", l.Load1)
	d.label("load5", fmt.Sprintf("%.2f", l.Load5))
	d.label("load15", fmt.Sprintf("%.2f", l.Load15))
	d.label("cores", itoa(int64(h.cores)))
	return nil
}

// memory: value is the share that is not available, per cent; bytes what is
// used.
func (h *hostReader) memory(ctx context.Context) error {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return err
	}
	if m.Total == 0 {
		return errors.New("no memory")
	}
	d := h.gauge("host_memory", 100*(1-float64(m.Available)/float64(m.Total)))
	d.SetBytes(int64(m.Total - min(m.Available, m.Total)))
	d.label("total_bytes", itoa(int64(m.Total)))
	swap, err := mem.SwapMemoryWithContext(ctx)
	if err != nil || swap.Total == 0 {
		return nil // a machine without swap is fine
	}
	d = h.gauge("host_swap", swap.UsedPercent)
	d.SetBytes(int64(swap.Used))
	d.label("total_bytes", itoa(int64(swap.Total)))
	return nil
}

// disks: value is the share in use of each mounted disk, per cent; bytes what is
// used.
func (h *hostReader) disks(ctx context.Context) error {
	parts, err := disk.PartitionsWithContext(ctx, false)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	if len(parts) == 0 { // in a container the root has no device
		parts = []disk.PartitionStat{{Mountpoint: "/"}}
	}
	for _, p := range parts {
		if p.Device != "" && seen[p.Device] || len(seen) >= limitDisks || p.Fstype == "squashfs" {
			continue // bind mounts show a disk again
		}
		u, err := disk.UsageWithContext(ctx, p.Mountpoint)
		if err != nil || u.Total == 0 {
			continue
		}
		seen[p.Device] = true
		d := h.gauge("host_disk", u.UsedPercent)
		d.SetBytes(int64(u.Used))
		d.ResourceType, d.ResourceName = "disk", p.Mountpoint
		d.label("device", p.Device)
		d.label("filesystem", p.Fstype)
		d.label("total_bytes", itoa(int64(u.Total)))
		d.label("free_bytes", itoa(int64(u.Free)))
		d.label("inodes_percent", fmt.Sprintf("%.1f", u.InodesUsedPercent))
	}
	return nil
}

// network: value is bytes a second in both directions of each interface since
// the reading before; bytes their sum.
func (h *hostReader) network(ctx context.Context) error {
	all, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		return err
	}
	now := h.s.c.cfg.Now()
	elapsed := now.Sub(h.nicsAt).Seconds()
	before := h.nicsBefore
	h.nicsBefore, h.nicsAt = make(map[string]net.IOCountersStat, len(all)), now
	for i, n := range all {
		if n.Name == "lo" || i >= limitNICs {
			continue
		}
		h.nicsBefore[n.Name] = n
		b, ok := before[n.Name]
		if !ok || elapsed <= 0 || n.BytesRecv < b.BytesRecv || n.BytesSent < b.BytesSent {
			continue // new, or its counters began again
		}
		in, out := n.BytesRecv-b.BytesRecv, n.BytesSent-b.BytesSent
		d := h.gauge("host_network", float64(in+out)/elapsed)
		d.SetBytes(int64(in + out))
		d.ResourceType, d.ResourceName = "nic", n.Name
		d.label("in_bytes", itoa(int64(in)))
		d.label("out_bytes", itoa(int64(out)))
		d.label("errors", itoa(int64(n.Errin+n.Errout)-int64(b.Errin+b.Errout)))
		d.label("drops", itoa(int64(n.Dropin+n.Dropout)-int64(b.Dropin+b.Dropout)))
	}
	return nil
}

// uptime: value is seconds since the machine started.
func (h *hostReader) uptime(ctx context.Context) error {
	s, err := host.UptimeWithContext(ctx)
	if err != nil {
		return err
	}
	h.gauge("host_uptime", float64(s))
	return nil
}
