// Package roundtrip reads rendered manifests into typed Kubernetes objects and proves that nothing was lost.
package roundtrip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// Document is one rendered object.
type Document struct {
	APIVersion, Kind, Namespace, Name string
	JSON                              []byte
}

// Overlay reads what `render` wrote for one directory of deploy/.
func Overlay(t *testing.T, name string) []Document {
	t.Helper()
	dir := os.Getenv("RENDERED")
	if dir == "" {
		t.Fatal("RENDERED names no directory; run tests/deploy/run")
	}
	text, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	var documents []Document
	for _, one := range raw {
		var head struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(one, &head); err != nil {
			t.Fatal(err)
		}
		documents = append(documents, Document{head.APIVersion, head.Kind, head.Metadata.Namespace, head.Metadata.Name, one})
	}
	return documents
}

// Names of the overlays that were rendered.
func Names(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(os.Getenv("RENDERED"), "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("nothing is rendered: %v", err)
	}
	var names []string
	for _, file := range files {
		names = append(names, string(bytes.TrimSuffix([]byte(filepath.Base(file)), []byte(".json"))))
	}
	return names
}

// Check decodes into object, which knows every field or refuses, and compares with what it encodes again. What the
// types add of themselves (an empty status, a null creation time) is no loss.
func Check(document Document, object any) error {
	decoder := json.NewDecoder(bytes.NewReader(document.JSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(object); err != nil {
		return fmt.Errorf("%s %s: %w", document.Kind, document.Name, err)
	}
	again, err := json.Marshal(object)
	if err != nil {
		return err
	}
	var before, after any
	if err := json.Unmarshal(document.JSON, &before); err != nil {
		return err
	}
	if err := json.Unmarshal(again, &after); err != nil {
		return err
	}
	return kept(document.Kind+" "+document.Name, before, after)
}

// kept says which value of before is not in after.
func kept(path string, before, after any) error {
	switch value := before.(type) {
	case map[string]any:
		other, ok := after.(map[string]any)
		if !ok {
			return fmt.Errorf("%s was lost", path)
		}
		for key, inner := range value {
			found, ok := other[key]
			if !ok && !empty(inner) {
				return fmt.Errorf("%s.%s was lost", path, key)
			}
			if ok {
				if err := kept(path+"."+key, inner, found); err != nil {
					return err
				}
			}
		}
	case []any:
		other, ok := after.([]any)
		if !ok || len(other) != len(value) {
			if len(value) == 0 {
				return nil
			}
			return fmt.Errorf("%s was lost in part", path)
		}
		for i := range value {
			if err := kept(fmt.Sprintf("%s[%d]", path, i), value[i], other[i]); err != nil {
				return err
			}
		}
	default:
		if !reflect.DeepEqual(before, after) {
			return fmt.Errorf("%s was %v and became %v", path, before, after)
		}
	}
	return nil
}

// An explicit false or empty list is what the object has without it.
func empty(value any) bool {
	switch value := value.(type) {
	case bool:
		return !value
	case []any:
		return len(value) == 0
	case map[string]any:
		return len(value) == 0
	default:
		return value == nil
	}
}
