package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os/exec"
	"reflect"
	"strings"
)

// sources reads marker comments, a package at a time.
type sources struct {
	packages map[string]*source
}

type source struct {
	types     map[string]markers
	fields    map[string]markers
	constants map[string]string
}

// markers are the `+name=value` lines above a declaration.
type markers []string

func newSources() *sources {
	return &sources{packages: map[string]*source{}}
}

func (s *sources) ofType(of reflect.Type) markers {
	return s.pkg(of.PkgPath()).types[of.Name()]
}

func (s *sources) ofField(of reflect.Type, name string) markers {
	return s.pkg(of.PkgPath()).fields[of.Name()+"."+name]
}

func (s *sources) pkg(path string) *source {
	if known, ok := s.packages[path]; ok {
		return known
	}
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		log.Fatalf("go list %s: %v", path, err)
	}
	parsed, err := parser.ParseDir(token.NewFileSet(), strings.TrimSpace(string(out)), nil, parser.ParseComments)
	if err != nil {
		log.Fatal(err)
	}
	src := &source{types: map[string]markers{}, fields: map[string]markers{}, constants: map[string]string{}}
	for name, pkg := range parsed {
		if strings.HasSuffix(name, "_test") {
			continue
		}
		for _, file := range pkg.Files {
			src.read(file)
		}
	}
	s.packages[path] = src
	return src
}

func (s *source) read(file *ast.File) {
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				s.types[spec.Name.Name] = append(read(gen.Doc), read(spec.Doc)...)
				if of, ok := spec.Type.(*ast.StructType); ok {
					s.readFields(spec.Name.Name, of)
				}
			case *ast.ValueSpec:
				for i, name := range spec.Names {
					if i < len(spec.Values) {
						if literal, ok := spec.Values[i].(*ast.BasicLit); ok {
							s.constants[name.Name] = literal.Value
						}
					}
				}
			}
		}
	}
}

func (s *source) readFields(typeName string, of *ast.StructType) {
	for _, f := range of.Fields.List {
		for _, name := range f.Names {
			s.fields[typeName+"."+name.Name] = read(f.Doc)
		}
	}
}

func read(doc *ast.CommentGroup) markers {
	if doc == nil {
		return nil
	}
	var found markers
	for _, line := range doc.List {
		text := strings.TrimSpace(strings.TrimPrefix(line.Text, "//"))
		if strings.HasPrefix(text, "+") {
			found = append(found, text[1:])
		}
	}
	return found
}

func (m markers) values(name string) []string {
	var all []string
	for _, marker := range m {
		if key, value, ok := strings.Cut(marker, "="); ok && key == name {
			all = append(all, value)
		}
	}
	return all
}

func (m markers) has(name, value string) bool {
	for _, v := range m.values(name) {
		if v == value {
			return true
		}
	}
	return false
}

func (m markers) atomicStruct() bool { return m.has("structType", "atomic") }
func (m markers) atomicMap() bool    { return m.has("mapType", "atomic") }

// list returns the Rust ListKind; atomicType says whether the field's own type is marked atomic.
func (m markers) list(of reflect.Type, atomicType bool) string {
	if m.atomicStruct() || m.atomicMap() || atomicType && !m.has("structType", "granular") && !m.has("mapType", "granular") {
		return "AtomicValue"
	}
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	kinds := m.values("listType")
	if len(kinds) == 0 {
		if of.Kind() == reflect.Slice && of.Elem().Kind() != reflect.Uint8 {
			return "Atomic"
		}
		return "Plain"
	}
	switch kinds[len(kinds)-1] {
	case "atomic":
		return "Atomic"
	case "set":
		return "Set"
	case "map":
		quoted, _ := json.Marshal(m.values("listMapKey"))
		return "Keyed(&" + string(quoted) + ")"
	default:
		log.Fatalf("list type %v", kinds)
		return ""
	}
}

// defaultValue returns the `+default=` marker as JSON, `ref(NAME)` resolved in the type's package.
func (m markers) defaultValue(s *sources, of reflect.Type) string {
	values := m.values("default")
	if len(values) == 0 {
		return ""
	}
	value := values[0]
	if name, ok := strings.CutPrefix(value, "ref("); ok {
		value = s.pkg(of.PkgPath()).constants[strings.TrimSuffix(name, ")")]
	}
	if !json.Valid([]byte(value)) {
		log.Fatalf("%v: default %s", of, value)
	}
	return value
}
