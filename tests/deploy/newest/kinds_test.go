// The manifests in deploy/ as Kubernetes, the sidecars and the driver itself read them.
package newest

import (
	"encoding/json"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	storage "k8s.io/api/storage/v1"

	"csi-udisk/tests/deploy/roundtrip"
)

// objects are the documents of one overlay by kind and name.
type objects struct {
	services     map[string]*core.Service
	accounts     map[string]*core.ServiceAccount
	statefulSets map[string]*apps.StatefulSet
	daemonSets   map[string]*apps.DaemonSet
	policies     map[string]*networking.NetworkPolicy
	roles        map[string]*rbac.Role
	bindings     map[string]*rbac.RoleBinding
	clusterRoles map[string]*rbac.ClusterRole
	clusterBinds map[string]*rbac.ClusterRoleBinding
	drivers      map[string]*storage.CSIDriver
	classes      map[string]*storage.StorageClass
}

func load(t *testing.T, overlay string) objects {
	t.Helper()
	o := objects{
		map[string]*core.Service{}, map[string]*core.ServiceAccount{}, map[string]*apps.StatefulSet{},
		map[string]*apps.DaemonSet{}, map[string]*networking.NetworkPolicy{}, map[string]*rbac.Role{},
		map[string]*rbac.RoleBinding{}, map[string]*rbac.ClusterRole{}, map[string]*rbac.ClusterRoleBinding{},
		map[string]*storage.CSIDriver{}, map[string]*storage.StorageClass{},
	}
	for _, document := range roundtrip.Overlay(t, overlay) {
		switch document.Kind {
		case "Service":
			put(t, o.services, document)
		case "ServiceAccount":
			put(t, o.accounts, document)
		case "StatefulSet":
			put(t, o.statefulSets, document)
		case "DaemonSet":
			put(t, o.daemonSets, document)
		case "NetworkPolicy":
			put(t, o.policies, document)
		case "Role":
			put(t, o.roles, document)
		case "RoleBinding":
			put(t, o.bindings, document)
		case "ClusterRole":
			put(t, o.clusterRoles, document)
		case "ClusterRoleBinding":
			put(t, o.clusterBinds, document)
		case "CSIDriver":
			put(t, o.drivers, document)
		case "StorageClass":
			put(t, o.classes, document)
		default:
			t.Fatalf("%s: %s %s is of a kind that no test knows", overlay, document.Kind, document.Name)
		}
	}
	return o
}

func put[T any](t *testing.T, into map[string]*T, document roundtrip.Document) {
	t.Helper()
	object := new(T)
	if err := roundtrip.Check(document, object); err != nil {
		t.Errorf("%v", err)
	}
	if _, twice := into[document.Name]; twice {
		t.Errorf("%s %s is there twice", document.Kind, document.Name)
	}
	into[document.Name] = object
}

func text(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	// Once more by way of a map, whose keys are in order.
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(plain); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if text(t, got) != text(t, want) {
		t.Errorf("%s is %s; wanted %s", what, text(t, got), text(t, want))
	}
}
