package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// resource is one entry of discovery with its subresources.
type resource struct {
	metav1.APIResource
	group, version string
	subresources   []metav1.APIResource
	storage        string
	stored         bool
}

// special paths below /registry: kubernetes pkg/kubeapiserver/default_storage_factory_builder.go, and the API servers that put
// the group in front.
var storagePaths = map[string]string{
	"/replicationcontrollers":     "controllers",
	"/endpoints":                  "services/endpoints",
	"/nodes":                      "minions",
	"/services":                   "services/specs",
	"networking.k8s.io/ingresses": "ingress",
	"apiextensions.k8s.io/customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions",
	"apiregistration.k8s.io/apiservices":             "apiregistration.k8s.io/apiservices",
}

func readJSON(path string, into any) {
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
}

// readDiscovery returns the served resources in discovery's order: core, then the groups of apis.json.
func readDiscovery(dir string) []resource {
	var groups metav1.APIGroupList
	readJSON(filepath.Join(dir, "apis.json"), &groups)
	versions := []string{"api_v1.json"}
	for _, group := range groups.Groups {
		for _, version := range group.Versions {
			versions = append(versions, "apis_"+strings.ReplaceAll(version.GroupVersion, "/", "_")+".json")
		}
	}
	var all []resource
	for _, file := range versions {
		var list metav1.APIResourceList
		readJSON(filepath.Join(dir, file), &list)
		all = append(all, fromList(list)...)
	}
	markStored(all)
	return all
}

func fromList(list metav1.APIResourceList) []resource {
	group, version := "", list.GroupVersion
	if g, v, ok := strings.Cut(list.GroupVersion, "/"); ok {
		group, version = g, v
	}
	var all []resource
	index := map[string]int{}
	for _, entry := range list.APIResources {
		parent, sub, isSub := strings.Cut(entry.Name, "/")
		if isSub {
			entry.Name = sub
			if entry.Version == "" {
				entry.Group, entry.Version = group, version
			}
			at, ok := index[parent]
			if !ok {
				log.Fatalf("%s: subresource %s before its resource", list.GroupVersion, entry.Name)
			}
			all[at].subresources = append(all[at].subresources, entry)
			continue
		}
		r := resource{APIResource: entry, group: group, version: version}
		if entry.StorageVersionHash != "" {
			r.storage = storagePaths[group+"/"+entry.Name]
			if r.storage == "" {
				r.storage = entry.Name
			}
		}
		index[entry.Name] = len(all)
		all = append(all, r)
	}
	return all
}

// markStored sets which of the served versions of a resource is stored: the one that fits the storage version hash
// (apiserver pkg/endpoints/discovery/storageversionhash.go); where upstream stores one that it does not serve, the first.
func markStored(all []resource) {
	stored := map[string]bool{}
	for i := range all {
		r := &all[i]
		sum := sha256.Sum256([]byte(r.group + "/" + r.version + "/" + r.Kind))
		if base64.StdEncoding.EncodeToString(sum[:8]) == r.StorageVersionHash {
			r.stored = true
			stored[r.storage] = true
		}
	}
	for i := range all {
		if r := &all[i]; r.storage != "" && !stored[r.storage] {
			r.stored = true
			stored[r.storage] = true
		}
	}
}
