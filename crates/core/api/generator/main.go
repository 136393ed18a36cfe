// Command generator writes the table of built-in kinds (crates/core/api/src/table/generated.rs) from upstream's Go
// types, their marker comments, and the discovery documents of a running upstream.
//
//	go run . -discovery DIR -openapi DIR -out FILE
//
// With -v3 DIR it writes the OpenAPI v3 documents of crates/io/apiserver/openapi/v3 as protobuf instead.
package main

import (
	"flag"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	discovery := flag.String("discovery", "", "directory of discovery documents: api.json, apis.json, api_v1.json, apis_GROUP_VERSION.json")
	openapi := flag.String("openapi", "", "directory of OpenAPI documents: v2.json.gz (used to check the table)")
	out := flag.String("out", "", "file to write")
	v3 := flag.String("v3", "", "directory of OpenAPI v3 documents in JSON, to be written as protobuf beside")
	flag.Parse()
	if *v3 != "" {
		writeProtobuf(*v3)
		return
	}
	if *discovery == "" || *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	served := readDiscovery(*discovery)
	types := newTypes()
	kinds := types.addKinds(served)
	if *openapi != "" {
		check(*openapi, types)
	}
	if err := os.WriteFile(*out, render(types, kinds, served), 0o644); err != nil {
		log.Fatal(err)
	}
}
