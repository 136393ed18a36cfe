package main

import (
	"compress/gzip"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// definition is what a published schema says that the table says too.
type definition struct {
	Properties map[string]property `json:"properties"`
	MapType    string              `json:"x-kubernetes-map-type"`
}

type property struct {
	ListType string   `json:"x-kubernetes-list-type"`
	ListKeys []string `json:"x-kubernetes-list-map-keys"`
	MapType  string   `json:"x-kubernetes-map-type"`
	Strategy string   `json:"x-kubernetes-patch-strategy"`
	MergeKey string   `json:"x-kubernetes-patch-merge-key"`
}

// check compares the table with the published OpenAPI document and fails where they differ: a marker that the generator
// misread would show here.
func check(dir string, t *types) {
	file, err := os.Open(filepath.Join(dir, "v2.json.gz"))
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		log.Fatal(err)
	}
	var document struct {
		Definitions map[string]definition `json:"definitions"`
	}
	if err := json.NewDecoder(unzipped).Decode(&document); err != nil {
		log.Fatal(err)
	}
	differences, checked := 0, 0
	for name, published := range document.Definitions {
		parts := strings.Split(name, ".")
		if len(parts) < 3 {
			continue
		}
		parts = parts[len(parts)-3:]
		known, ok := t.byName[parts[0]+"/"+parts[1]+"."+parts[2]]
		if !ok || len(published.Properties) == 0 {
			continue
		}
		checked++
		for _, difference := range compare(known, published) {
			differences++
			log.Printf("%s: %s", known.name, difference)
		}
	}
	log.Printf("%d of %d types compared with the OpenAPI document", checked, len(t.byName))
	if differences > 0 {
		log.Fatalf("%d differences", differences)
	}
}

func compare(known *structType, published definition) []string {
	var found []string
	if known.atomic != (published.MapType == "atomic") {
		found = append(found, "map type "+published.MapType)
	}
	seen := map[string]bool{}
	for _, f := range known.fields {
		seen[f.name] = true
		p, ok := published.Properties[f.name]
		if !ok {
			found = append(found, f.name+" is not published")
			continue
		}
		list := "Plain"
		switch p.ListType {
		case "atomic":
			list = "Atomic"
		case "set":
			list = "Set"
		case "map":
			keys, _ := json.Marshal(p.ListKeys)
			list = "Keyed(&" + string(keys) + ")"
		}
		// Lists without a word are atomic; atomic structs say so at their type.
		if f.list != list && !(list == "Plain" && (f.list == "Atomic" || f.list == "AtomicValue")) {
			found = append(found, f.name+" is "+f.list+", published as "+list)
		}
		strategies := strings.Split(p.Strategy, ",")
		patch := ""
		if p.Strategy != "" || p.MergeKey != "" {
			patch = patchExpression(slices.Contains(strategies, "merge"), slices.Contains(strategies, "retainKeys"),
				slices.Contains(strategies, "replace"), p.MergeKey)
		}
		if f.patch != patch {
			found = append(found, f.name+" is patched "+f.patch+", published as "+patch)
		}
	}
	for name := range published.Properties {
		if !seen[name] {
			found = append(found, name+" is missing")
		}
	}
	return found
}
