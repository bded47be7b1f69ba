package sanity

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Kubelet's side of the registration with kubelet's own library and its way to dial: by the socket's bare path, from which
// the library makes an authority. Its messages are small enough to be written and searched as bytes.
func TestRegistration(t *testing.T) {
	dir := t.TempDir()
	registry, seen := filepath.Join(dir, "plugins_registry"), "/var/lib/kubelet/csi-plugins/x/csi.sock"
	if err := os.Mkdir(registry, 0o700); err != nil {
		t.Fatal(err)
	}
	driver := start(t, "node", nil, "--mode=node", "--node-id=uhost-a", "--region=r", "--zone=r-01", "--machine-type=N",
		"--plugin-dir="+filepath.Join(dir, "plugin"), "--kubelet-dir="+dir,
		"--plugin-registration-path="+registry, "--kubelet-registration-path="+seen)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.DialContext(ctx, filepath.Join(registry, "udisk.csi.ucloud.cn-reg.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithBlock(),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	for range 3 {
		info := new(emptypb.Empty)
		if err := connection.Invoke(ctx, "/pluginregistration.Registration/GetInfo", new(emptypb.Empty), info); err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"CSIPlugin", "udisk.csi.ucloud.cn", seen, "1.0.0"} {
			if !strings.Contains(string(info.ProtoReflect().GetUnknown()), word) {
				t.Errorf("no %s in %q", word, info.ProtoReflect().GetUnknown())
			}
		}
	}
	registered := new(emptypb.Empty)
	registered.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1))
	err = connection.Invoke(ctx, "/pluginregistration.Registration/NotifyRegistrationStatus", registered, new(emptypb.Empty))
	if err != nil {
		t.Fatal(err)
	}
	// What was registered is remembered, and that is the last thing done.
	driver.waitFor(t, filepath.Join(dir, "plugin", "registered.json"))
}
