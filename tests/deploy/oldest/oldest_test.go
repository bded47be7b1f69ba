// Everything but the overlay for newer clusters holds only what Kubernetes 1.26 knows.
package oldest

import (
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	storage "k8s.io/api/storage/v1"

	"csi-udisk/tests/deploy/roundtrip"
)

const newer = "kubernetes-1.36"

var kinds = map[string]func() any{
	"v1/Service":                                      func() any { return new(core.Service) },
	"v1/ServiceAccount":                               func() any { return new(core.ServiceAccount) },
	"apps/v1/StatefulSet":                             func() any { return new(apps.StatefulSet) },
	"apps/v1/DaemonSet":                               func() any { return new(apps.DaemonSet) },
	"networking.k8s.io/v1/NetworkPolicy":              func() any { return new(networking.NetworkPolicy) },
	"rbac.authorization.k8s.io/v1/Role":               func() any { return new(rbac.Role) },
	"rbac.authorization.k8s.io/v1/RoleBinding":        func() any { return new(rbac.RoleBinding) },
	"rbac.authorization.k8s.io/v1/ClusterRole":        func() any { return new(rbac.ClusterRole) },
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding": func() any { return new(rbac.ClusterRoleBinding) },
	"storage.k8s.io/v1/CSIDriver":                     func() any { return new(storage.CSIDriver) },
	"storage.k8s.io/v1/StorageClass":                  func() any { return new(storage.StorageClass) },
}

func TestManifestsHoldOnlyWhatKubernetes126Knows(t *testing.T) {
	seen := 0
	for _, overlay := range roundtrip.Names(t) {
		refused := 0
		for _, document := range roundtrip.Overlay(t, overlay) {
			object, ok := kinds[document.APIVersion+"/"+document.Kind]
			if !ok {
				t.Errorf("%s: %s %s is of a kind that no test knows", overlay, document.Kind, document.Name)
				continue
			}
			if err := roundtrip.Check(document, object()); err != nil {
				refused++
				if !strings.Contains(overlay, newer) {
					t.Errorf("%s: %v", overlay, err)
				}
			}
			seen++
		}
		if strings.Contains(overlay, newer) && refused == 0 {
			t.Errorf("%s holds nothing that 1.26 does not know, so it could be in the base", overlay)
		}
	}
	t.Logf("%d documents", seen)
}
