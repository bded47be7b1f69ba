// Render writes deploy/base and each overlay as a list of JSON objects, as `kubectl apply -k` would send them.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: render DEPLOY OUT")
	}
	deploy, out := os.Args[1], os.Args[2]
	overlays, err := filepath.Glob(filepath.Join(deploy, "overlays", "*"))
	if err != nil {
		log.Fatal(err)
	}
	for _, dir := range append(overlays, filepath.Join(deploy, "base")) {
		if err := render(dir, filepath.Join(out, filepath.Base(dir)+".json")); err != nil {
			log.Fatalf("%s: %v", dir, err)
		}
	}
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
