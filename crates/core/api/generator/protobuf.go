package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
)

// writeProtobuf writes each NAME.json.gz of OpenAPI v3 as NAME.pb.gz beside it, in the form that upstream serves
// (kube-openapi handler3.ToV3ProtoBinary).
func writeProtobuf(dir string) {
	documents, err := filepath.Glob(filepath.Join(dir, "*.json.gz"))
	if err != nil || len(documents) == 0 {
		log.Fatal("no documents in ", dir, err)
	}
	for _, name := range documents {
		packed, err := os.ReadFile(name)
		if err != nil {
			log.Fatal(err)
		}
		unzipped, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			log.Fatal(name, err)
		}
		json, err := io.ReadAll(unzipped)
		if err != nil {
			log.Fatal(name, err)
		}
		document, err := openapi_v3.ParseDocument(json)
		if err != nil {
			log.Fatal(name, err)
		}
		binary, err := proto.MarshalOptions{Deterministic: true}.Marshal(document)
		if err != nil {
			log.Fatal(name, err)
		}
		var out bytes.Buffer
		zip, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
		if _, err := zip.Write(binary); err != nil {
			log.Fatal(err)
		}
		if err := zip.Close(); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(strings.TrimSuffix(name, ".json.gz")+".pb.gz", out.Bytes(), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
