package sanity

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TestProtoIsTheOfficialOne compares every message, field, number, type, enum, service, reserved range and
// option of proto/csi.proto with the official Go package. Comments are ours and not compared.
func TestProtoIsTheOfficialOne(t *testing.T) {
	encode := exec.Command("cargo", "run", "--quiet", "--example", "csi-descriptors")
	encode.Dir = "../.."
	encoded, err := encode.Output()
	if err != nil {
		t.Fatalf("cannot encode proto/csi.proto: %v", err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(encoded, &set); err != nil {
		t.Fatal(err)
	}
	var ours *descriptorpb.FileDescriptorProto
	for _, file := range set.File {
		if file.GetPackage() == "csi.v1" {
			ours = file
		}
	}
	if ours == nil {
		t.Fatal("no file of package csi.v1 among the descriptors")
	}
	official := protodesc.ToFileDescriptorProto(csi.File_csi_proto)
	normalize(ours)
	normalize(official)
	// The file's path is a matter of the build, not of the contract.
	ours.Name, official.Name = nil, nil

	for _, difference := range differences("csi.proto", official.ProtoReflect(), ours.ProtoReflect()) {
		t.Error(difference)
	}
	if !proto.Equal(official, ours) && !t.Failed() {
		t.Error("the descriptors differ")
	}
	t.Logf("%d messages, %d enums, %d services, %d extensions compared", len(ours.MessageType),
		len(ours.EnumType), len(ours.Service), len(ours.Extension))
}

// normalize drops comments and makes an empty options message equal to none.
func normalize(file *descriptorpb.FileDescriptorProto) {
	file.SourceCodeInfo = nil
	dropEmptyOptions(file.ProtoReflect())
}

func dropEmptyOptions(message protoreflect.Message) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Kind() != protoreflect.MessageKind || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				dropEmptyOptions(value.List().Get(i).Message())
			}
		case field.Name() == "options" && proto.Size(value.Message().Interface()) == 0:
			message.Clear(field)
		default:
			dropEmptyOptions(value.Message())
		}
		return true
	})
}

// differences names each place where two descriptors are unlike, so that a failure can be read.
func differences(path string, want, have protoreflect.Message) []string {
	var found []string
	fields := want.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		here := path + "." + string(field.Name())
		switch {
		case want.Has(field) != have.Has(field):
			found = append(found, fmt.Sprintf("%s: official %v, ours %v", here, want.Get(field), have.Get(field)))
		case !want.Has(field):
		case field.IsList():
			wanted, had := want.Get(field).List(), have.Get(field).List()
			if wanted.Len() != had.Len() {
				found = append(found, fmt.Sprintf("%s: official has %d, ours %d", here, wanted.Len(), had.Len()))
				continue
			}
			for j := range wanted.Len() {
				found = append(found, element(fmt.Sprintf("%s[%d]", here, j), field, wanted.Get(j), had.Get(j))...)
			}
		default:
			found = append(found, element(here, field, want.Get(field), have.Get(field))...)
		}
	}
	if string(want.GetUnknown()) != string(have.GetUnknown()) {
		found = append(found, fmt.Sprintf("%s: fields that the package does not know differ", path))
	}
	return found
}

func element(path string, field protoreflect.FieldDescriptor, want, have protoreflect.Value) []string {
	if field.Kind() != protoreflect.MessageKind {
		if want.Equal(have) {
			return nil
		}
		return []string{fmt.Sprintf("%s: official %v, ours %v", path, want, have)}
	}
	// Options carry extensions, which are not among the fields of the descriptor.
	if field.Name() == "options" {
		if proto.Equal(want.Message().Interface(), have.Message().Interface()) {
			return nil
		}
		return []string{fmt.Sprintf("%s: official {%v}, ours {%v}", path, want, have)}
	}
	return differences(path, want.Message(), have.Message())
}
