package sanity

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// process is a driver or sandbox under test. Its log is shown when the test fails.
type process struct {
	name string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan error
}

func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CSI_UDISK_BINARY")
	if path == "" {
		path = "../../target/debug/csi-udisk"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("build the driver first (cargo build), or name it in CSI_UDISK_BINARY: %v", err)
	}
	return path
}

// start runs the binary until the test ends; it dies with the test process.
func start(t *testing.T, name string, environment []string, arguments ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(binary(t), arguments...), done: make(chan error, 1)}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, environment...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("%s did not stop cleanly: %v", p.name, err)
		}
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		t.Errorf("%s did not stop within 30 s of SIGTERM", p.name)
	}
	if t.Failed() {
		t.Logf("log of %s:\n%s", p.name, tail(p.log.String(), 300))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// waitFor returns when the path exists, or fails the test.
func (p *process) waitFor(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("%s ended (%v) before %s was there:\n%s", p.name, err, path, p.log.String())
		case <-deadline:
			t.Fatalf("%s does not make %s:\n%s", p.name, path, p.log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// environment reads NAME=value lines, as the sandbox writes them for drivers in processes of their own.
func environment(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// sandbox is a simulated cloud with the driver's two services in processes of their own.
type sandbox struct {
	dir, controller, node string
}

func startSandbox(t *testing.T) sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		leaveOut(t, "csi-sanity: the node service needs root for loop devices and mounts")
	}
	dir := filepath.Join(t.TempDir(), "s")
	cloud := start(t, "sandbox", nil, "sandbox", "--serve", "--cloud-only", "--latency", "none", "--dir", dir)
	cloud.waitFor(t, filepath.Join(dir, "cloud.url"))
	s := sandbox{dir: dir, controller: filepath.Join(dir, "c.sock"), node: filepath.Join(dir, "n.sock")}
	for _, role := range []struct{ mode, socket string }{{"controller", s.controller}, {"node", s.node}} {
		driver := start(t, role.mode, environment(t, filepath.Join(dir, role.mode+".env")),
			"--mode", role.mode, "--endpoint", "unix://"+role.socket)
		driver.waitFor(t, role.socket)
	}
	return s
}

// leaveOut skips a test, and says so where tests/run collects what was left out.
func leaveOut(t *testing.T, reason string) {
	t.Helper()
	if list := os.Getenv("CSI_UDISK_TEST_SKIPS"); list != "" {
		file, err := os.OpenFile(list, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := fmt.Fprintln(file, reason); err != nil {
			t.Fatal(err)
		}
	}
	t.Skip(reason)
}

func connect(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// isCapability tells whether CSI has a capability of this name, as advertised writes it.
func isCapability(name string) bool {
	if step, found := strings.CutPrefix(name, "node "); found {
		return csi.NodeServiceCapability_RPC_Type_value[step] != 0
	}
	return csi.ControllerServiceCapability_RPC_Type_value[name]+csi.PluginCapability_Service_Type_value[name] != 0
}

// advertised is what the driver says that it offers; capabilities of the node service are marked as such.
func advertised(t *testing.T, s sandbox) []string {
	t.Helper()
	controller, node := connect(t, s.controller), connect(t, s.node)
	plugin, err := csi.NewIdentityClient(controller).GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, capability := range plugin.Capabilities {
		if service := capability.GetService(); service != nil {
			names = append(names, service.Type.String())
		}
	}
	calls, err := csi.NewControllerClient(controller).ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, capability := range calls.Capabilities {
		names = append(names, capability.GetRpc().Type.String())
	}
	steps, err := csi.NewNodeClient(node).NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, capability := range steps.Capabilities {
		names = append(names, "node "+capability.GetRpc().Type.String())
	}
	if len(names) == 0 {
		t.Fatal("the driver advertises nothing")
	}
	return names
}

func describe(outcomes []outcome) string {
	var text strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&text, "  %s: %s\n    %s\n", o.State, o.Name, strings.ReplaceAll(o.Message, "\n", "\n    "))
	}
	return text.String()
}
