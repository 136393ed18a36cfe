package main

import (
	"fmt"
	"log"
	"reflect"
	"sort"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var registrations = []func(*runtime.Scheme) error{
	admissionv1.AddToScheme, admissionregistrationv1.AddToScheme, appsv1.AddToScheme, authenticationv1.AddToScheme,
	authorizationv1.AddToScheme, autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme,
	certificatesv1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme, discoveryv1.AddToScheme,
	eventsv1.AddToScheme, flowcontrolv1.AddToScheme, networkingv1.AddToScheme, nodev1.AddToScheme, policyv1.AddToScheme,
	rbacv1.AddToScheme, resourcev1.AddToScheme, schedulingv1.AddToScheme, storagev1.AddToScheme,
	storagemigrationv1.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme,
}

// metaKinds speak for every group: listed once, under meta.k8s.io/v1.
var metaKinds = []any{
	metav1.CreateOptions{}, metav1.DeleteOptions{}, metav1.GetOptions{}, metav1.ListOptions{}, metav1.PatchOptions{},
	metav1.UpdateOptions{}, metav1.ApplyOptions{}, metav1.Status{}, metav1.List{}, metav1.WatchEvent{}, metav1.Table{},
	metav1.PartialObjectMetadata{}, metav1.PartialObjectMetadataList{}, metav1.APIGroup{}, metav1.APIGroupList{},
	metav1.APIResourceList{}, metav1.APIVersions{},
}

// shape is a Rust expression of schema::table::Shape.
type shape = string

type field struct {
	name, goType string
	shape        shape
	presence     string
	def          string
	list         string
	patch        string
	number       int
	within       []embedded
}

type structType struct {
	name   string
	goType reflect.Type
	fields []field
	atomic bool
}

type kind struct {
	group, version, kind, typeName string
}

type types struct {
	byName  map[string]*structType
	sources *sources
}

func newTypes() *types {
	return &types{byName: map[string]*structType{}, sources: newSources()}
}

// addKinds walks every registered kind of the groups and versions served, and the kinds of meta/v1.
func (t *types) addKinds(served []resource) []kind {
	scheme := runtime.NewScheme()
	for _, register := range registrations {
		if err := register(scheme); err != nil {
			log.Fatal(err)
		}
	}
	shared := map[reflect.Type]bool{}
	var kinds []kind
	for _, value := range metaKinds {
		of := reflect.TypeOf(value)
		shared[of] = true
		kinds = append(kinds, kind{"meta.k8s.io", "v1", of.Name(), t.add(of)})
	}
	for gvk, of := range scheme.AllKnownTypes() {
		if shared[of] || gvk.Version == runtime.APIVersionInternal {
			continue
		}
		kinds = append(kinds, kind{gvk.Group, gvk.Version, gvk.Kind, t.add(of)})
	}
	sort.Slice(kinds, func(i, j int) bool {
		a, b := kinds[i], kinds[j]
		return a.group+"\x00"+a.version+"\x00"+a.kind < b.group+"\x00"+b.version+"\x00"+b.kind
	})
	for _, r := range served {
		if !scheme.Recognizes(metav1SchemaKind(r)) {
			log.Fatalf("%s/%s %s is served and not known", r.group, r.version, r.Kind)
		}
	}
	return kinds
}

// typeName is `core/v1.Pod`: the package's last two path elements and the Go name.
func typeName(of reflect.Type) string {
	parts := strings.Split(of.PkgPath(), "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/") + "." + of.Name()
}

func (t *types) add(of reflect.Type) string {
	name := typeName(of)
	if known, ok := t.byName[name]; ok {
		if known.goType != of {
			log.Fatalf("two types named %s", name)
		}
		return name
	}
	markers := t.sources.ofType(of)
	s := &structType{name: name, goType: of, atomic: markers.atomicStruct()}
	t.byName[name] = s
	s.fields = t.fields(of, nil)
	seen := map[string]bool{}
	for _, f := range s.fields {
		if seen[f.name] {
			log.Fatalf("%s has two fields %s", name, f.name)
		}
		seen[f.name] = true
	}
	return name
}

// embedded names an embedded struct and its number in protobuf, outermost first.
type embedded struct {
	name   string
	number int
}

// fields flattens embedded structs; within tells where they stand in Go and in protobuf.
func (t *types) fields(of reflect.Type, within []embedded) []field {
	var all []field
	for i := range of.NumField() {
		sf := of.Field(i)
		jsonName, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if jsonName == "-" {
			continue
		}
		number := protobufNumber(sf)
		if jsonName == "" {
			if !sf.Anonymous || sf.Type.Kind() != reflect.Struct {
				log.Fatalf("%v.%s: no JSON name", of, sf.Name)
			}
			inner := append(append([]embedded{}, within...), embedded{sf.Name, number})
			all = append(all, t.fields(sf.Type, inner)...)
			continue
		}
		f := t.field(of, sf, jsonName, options)
		f.number, f.within = number, within
		for _, e := range within {
			if e.number == 0 {
				f.number = 0
			}
		}
		all = append(all, f)
	}
	return all
}

func (t *types) field(of reflect.Type, sf reflect.StructField, jsonName, options string) field {
	markers := t.sources.ofField(of, sf.Name)
	f := field{name: jsonName, goType: strings.TrimLeft(sf.Type.String(), "*")}
	var atomicType bool
	f.shape, atomicType = t.shape(sf.Type)
	f.presence = presence(of, sf, options)
	f.def = markers.defaultValue(t.sources, of)
	f.list = markers.list(sf.Type, atomicType)
	strategy := sf.Tag.Get("patchStrategy")
	key := sf.Tag.Get("patchMergeKey")
	if strategy != "" || key != "" {
		f.patch = patchExpression(strings.Contains(strategy, "merge"), strings.Contains(strategy, "retainKeys"),
			strings.Contains(strategy, "replace"), key)
	}
	return f
}

// patchExpression is the Rust expression of schema::table::Patch.
func patchExpression(merge, retainKeys, replace bool, key string) string {
	return fmt.Sprintf("p(%t, %t, %t, %q)", merge, retainKeys, replace, key)
}

func protobufNumber(sf reflect.StructField) int {
	tag := sf.Tag.Get("protobuf")
	if tag == "" {
		return 0
	}
	number, err := strconv.Atoi(strings.Split(tag, ",")[1])
	if err != nil {
		log.Fatalf("%s: %v", tag, err)
	}
	return number
}

func presence(of reflect.Type, sf reflect.StructField, options string) string {
	empty, zero := false, false
	for _, option := range strings.Split(options, ",") {
		switch option {
		case "omitempty":
			empty = true
		case "omitzero":
			zero = true
		case "":
		default:
			log.Fatalf("%v.%s: JSON option %s", of, sf.Name, option)
		}
	}
	switch kind := sf.Type.Kind(); {
	case kind == reflect.Pointer && (empty || zero):
		return "Pointer"
	case kind == reflect.Pointer:
		return "Nullable"
	case zero && !empty && (kind == reflect.Slice || kind == reflect.Map):
		log.Fatalf("%v.%s: omitzero alone on a list or map", of, sf.Name)
		return ""
	case zero:
		return "OmitZero"
	case empty:
		return "OmitEmpty"
	default:
		return "Always"
	}
}

// wholes are types with a JSON form of their own.
var wholes = map[string]shape{
	"api/resource.Quantity":                         "Quantity",
	"util/intstr.IntOrString":                       "IntOrString",
	"meta/v1.Time":                                  "Time",
	"meta/v1.MicroTime":                             "MicroTime",
	"meta/v1.FieldsV1":                              "Any",
	"pkg/runtime.RawExtension":                      "Any",
	"apiextensions/v1.JSON":                         "Any",
	"apiextensions/v1.JSONSchemaPropsOrBool":        "SchemaOrBool",
	"apiextensions/v1.JSONSchemaPropsOrArray":       "SchemaOrArray",
	"apiextensions/v1.JSONSchemaPropsOrStringArray": "SchemaOrStrings",
}

// shape returns the Rust shape, and whether the type (a struct or map) is marked atomic.
func (t *types) shape(of reflect.Type) (shape, bool) {
	if of.Kind() == reflect.Pointer {
		return t.shape(of.Elem())
	}
	whole, ok := wholes[typeName(of)]
	if ok && strings.HasPrefix(whole, "Schema") {
		t.add(reflect.TypeOf(apiextensionsv1.JSONSchemaProps{}))
		return whole + "(T(@apiextensions/v1.JSONSchemaProps@))", false
	}
	if ok {
		return whole, false
	}
	switch of.Kind() {
	case reflect.String:
		return "String", false
	case reflect.Bool:
		return "Bool", false
	case reflect.Int32:
		return "Int32", false
	case reflect.Int64, reflect.Int:
		return "Int64", false
	case reflect.Float64:
		return "Float64", false
	case reflect.Interface:
		return "Any", false
	case reflect.Struct:
		name := t.add(of)
		return "Struct(T(@" + name + "@))", t.byName[name].atomic
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			return "Bytes", false
		}
		element, _ := t.shape(of.Elem())
		// A named list is a message of its own in protobuf (authorization's ExtraValue, meta's Verbs).
		if of.Name() != "" {
			if _, isMessage := reflect.PointerTo(of).MethodByName("Marshal"); isMessage {
				return "Items(&" + element + ")", false
			}
		}
		return "List(&" + element + ")", false
	case reflect.Map:
		if of.Key().Kind() != reflect.String {
			log.Fatalf("map of %v", of.Key())
		}
		element, _ := t.shape(of.Elem())
		return "Map(&" + element + ")", t.atomicMap(of)
	default:
		log.Fatalf("no shape for %v", of)
		return "", false
	}
}

func (t *types) atomicMap(of reflect.Type) bool {
	return of.Name() != "" && t.sources.ofType(of).atomicMap()
}
