// Render writes deploy/base, each overlay, and components together, as lists of JSON objects, as `kubectl apply -k` would
// send them.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: render DEPLOY OUT")
	}
	deploy, err := filepath.Abs(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	out, err := filepath.Abs(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	overlays, err := filepath.Glob(filepath.Join(deploy, "overlays", "*"))
	if err != nil {
		log.Fatal(err)
	}
	for _, dir := range append(overlays, filepath.Join(deploy, "base")) {
		if err := render(dir, filepath.Join(out, filepath.Base(dir)+".json")); err != nil {
			log.Fatalf("%s: %v", dir, err)
		}
	}
	for _, names := range together {
		if err := renderTogether(deploy, out, names); err != nil {
			log.Fatalf("%v: %v", names, err)
		}
	}
}

// As an operator has them in a kustomization of their own; what replaces the arguments comes first.
var together = [][]string{
	{"registrar", "credentials", "kubernetes-1.36", "node-metrics"},
	{"data-kubelet", "credentials", "node-metrics"},
}

func renderTogether(deploy, out string, names []string) error {
	dir, err := os.MkdirTemp(out, "own")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// Kustomize takes no absolute paths.
	to, err := filepath.Rel(dir, deploy)
	if err != nil {
		return err
	}
	text := "resources: [" + to + "/base]\ncomponents:\n"
	for _, name := range names {
		text += "  - " + to + "/components/" + name + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	return render(dir, filepath.Join(out, strings.Join(names, "+")+".json"))
}

func render(dir, file string) error {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	documents := []json.RawMessage{}
	for _, resource := range resources.Resources() {
		text, err := resource.MarshalJSON()
		if err != nil {
			return err
		}
		documents = append(documents, text)
	}
	text, err := json.MarshalIndent(documents, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
