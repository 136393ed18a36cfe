package main

import (
	"bytes"
	"fmt"
	"regexp"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

var reference = regexp.MustCompile(`@([^@]+)@`)

func metav1SchemaKind(r resource) schema.GroupVersionKind {
	group, version := r.group, r.version
	if r.Version != "" {
		group, version = r.Group, r.Version
	}
	return schema.GroupVersionKind{Group: group, Version: version, Kind: r.Kind}
}

func render(t *types, kinds []kind, served []resource) []byte {
	names := make([]string, 0, len(t.byName))
	for name := range t.byName {
		names = append(names, name)
	}
	sort.Strings(names)
	ids := map[string]int{}
	for i, name := range names {
		ids[name] = i
	}
	resolve := func(text string) string {
		return reference.ReplaceAllStringFunc(text, func(found string) string {
			return fmt.Sprint(ids[strings.Trim(found, "@")])
		})
	}
	out := &bytes.Buffer{}
	out.WriteString("//! Written by crates/core/api/generator. Do not edit.\n\n")
	out.WriteString("use super::build::*;\n\n")
	fmt.Fprintf(out, "pub(super) static TYPES: [Type; %d] = [\n", len(names))
	for _, name := range names {
		s := t.byName[name]
		fmt.Fprintf(out, "    t(%q, %t, &[\n", name, s.atomic)
		for _, f := range s.fields {
			renderField(out, f, resolve)
		}
		out.WriteString("    ]),\n")
	}
	out.WriteString("];\n\n")
	fmt.Fprintf(out, "pub(super) static KINDS: [(&str, &str, &str, TypeId); %d] = [\n", len(kinds))
	for _, k := range kinds {
		fmt.Fprintf(out, "    (%q, %q, %q, T(%d)),\n", k.group, k.version, k.kind, ids[k.typeName])
	}
	out.WriteString("];\n\n")
	fmt.Fprintf(out, "pub(super) static RESOURCES: [Resource; %d] = [\n", len(served))
	for _, r := range served {
		renderResource(out, r, kinds, ids)
	}
	out.WriteString("];\n")
	return out.Bytes()
}

func renderField(out *bytes.Buffer, f field, resolve func(string) string) {
	fmt.Fprintf(out, "        f(%q, %q, %s, %s, %d", f.name, f.goType, resolve(f.shape), f.presence, f.number)
	if f.def == "" && f.patch == "" && len(f.within) == 0 && (f.list == "Plain" || f.list == "Atomic" && strings.HasPrefix(f.shape, "List(")) {
		out.WriteString("),\n")
		return
	}
	def := "None"
	if f.def != "" {
		def = fmt.Sprintf("Some(%s)", rustString(f.def))
	}
	patch := f.patch
	if patch == "" {
		patch = "NO_PATCH"
	}
	text := out.Bytes()
	at := bytes.LastIndex(text, []byte("        f("))
	call := string(text[at+len("        f("):])
	out.Truncate(at)
	fmt.Fprintf(out, "        g(%s, %s, %s, %s, %s),\n", call, def, f.list, patch, within(f.within))
}

func rustString(text string) string {
	return "r#\"" + text + "\"#"
}

func list(values []string) string {
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = fmt.Sprintf("%q", value)
	}
	return "&[" + strings.Join(quoted, ", ") + "]"
}

func renderResource(out *bytes.Buffer, r resource, kinds []kind, ids map[string]int) {
	gvk := metav1SchemaKind(r)
	of := -1
	for _, k := range kinds {
		if k.group == gvk.Group && k.version == gvk.Version && k.kind == gvk.Kind {
			of = ids[k.typeName]
		}
	}
	fmt.Fprintf(out, "    Resource {\n        group: %q,\n        version: %q,\n        kind: %q,\n        plural: %q,\n        singular: %q,\n",
		r.group, r.version, r.Kind, r.Name, r.SingularName)
	fmt.Fprintf(out, "        namespaced: %t,\n        short_names: %s,\n        categories: %s,\n        verbs: %s,\n",
		r.Namespaced, list(r.ShortNames), list(r.Categories), list(r.Verbs))
	out.WriteString("        subresources: &[\n")
	for _, s := range r.subresources {
		fmt.Fprintf(out, "            Subresource { name: %q, kind: %q, group: %q, version: %q, verbs: %s },\n",
			s.Name, s.Kind, s.Group, s.Version, list(s.Verbs))
	}
	fmt.Fprintf(out, "        ],\n        storage: %q,\n        storage_version_hash: %q,\n        of: T(%d),\n        stored: %t,\n    },\n",
		r.storage, r.StorageVersionHash, of, r.stored)
}

func within(path []embedded) string {
	parts := make([]string, len(path))
	for i, e := range path {
		parts[i] = fmt.Sprintf("w(%q, %d)", e.name, e.number)
	}
	return "&[" + strings.Join(parts, ", ") + "]"
}
