"""The fields of an ONNX file that datafree reads, and the reasons for refusing files with other fields."""

from __future__ import annotations

from dataclasses import replace

from .wire import Field, Schema

__all__ = ["ELSEWHERE", "FOREIGN", "MODEL", "SUBGRAPH"]

ELSEWHERE = "it reads data from other files (external data); get one that contains all of its weights"
SUBGRAPH = "it has control flow (a graph within an operator); write it without loops and branches"
SPARSE = "it has sparse weights; write them in full"
KEPT = "it has {}, which no file written by datafree has; write it again"

_ENTRY = Schema("StringStringEntryProto", {1: Field("key", "text"), 2: Field("value", "text")})

_TENSOR = Schema(
    "TensorProto",
    {
        1: Field("dims", repeated=True),
        2: Field("data_type"),
        3: Field("segment", refuse=KEPT.format("a tensor in segments")),
        4: Field("float_data", "bytes", repeated=True),
        5: Field("int32_data", "bytes", repeated=True),
        6: Field("string_data", refuse="it has a tensor of strings; write it with numbers only"),
        7: Field("int64_data", "bytes", repeated=True),
        8: Field("name", "text"),
        9: Field("raw_data", "bytes"),
        10: Field("double_data", "bytes", repeated=True),
        11: Field("uint64_data", "bytes", repeated=True),
        12: Field("doc_string", "text"),
        13: Field("external_data", refuse=ELSEWHERE),
        14: Field("data_location"),  # 0 for data within the file, otherwise external_data applies
        16: Field("metadata_props", _ENTRY, repeated=True),
    },
)

_DIMENSION = Schema("Dimension", {1: Field("dim_value"), 2: Field("dim_param", "text"), 3: Field("denotation", "text")})
_SHAPE = Schema("TensorShapeProto", {1: Field("dim", _DIMENSION, repeated=True)})
_KINDS = {4: "a sequence", 5: "a map", 7: "an opaque type", 8: "a sparse tensor", 9: "an optional value"}
_TYPE = Schema(
    "TypeProto",
    {
        1: Field("tensor_type", Schema("Tensor", {1: Field("elem_type"), 2: Field("shape", _SHAPE)})),
        6: Field("denotation", "text"),
        **{number: Field(kind, refuse=KEPT.format(kind)) for number, kind in _KINDS.items()},
    },
)
_VALUE = Schema(
    "ValueInfoProto",
    {
        1: Field("name", "text"),
        2: Field("type", _TYPE),
        3: Field("doc_string", "text"),
        4: Field("metadata_props", _ENTRY, repeated=True),
    },
)

_ATTRIBUTE = Schema(
    "AttributeProto",
    {
        1: Field("name", "text"),
        2: Field("f", "float"),
        3: Field("i"),
        4: Field("s", "bytes"),
        5: Field("t", _TENSOR),
        6: Field("g", refuse=SUBGRAPH),
        7: Field("floats", "float", repeated=True),
        8: Field("ints", repeated=True),
        9: Field("strings", "bytes", repeated=True),
        10: Field("tensors", refuse=KEPT.format("an attribute of several tensors")),
        11: Field("graphs", refuse=SUBGRAPH),
        13: Field("doc_string", "text"),
        14: Field("tp", refuse=KEPT.format("an attribute that is a type")),
        15: Field("type_protos", refuse=KEPT.format("an attribute that is a type")),
        20: Field("type"),
        21: Field("ref_attr_name", refuse=KEPT.format("an attribute of a function")),
        22: Field("sparse_tensor", refuse=SPARSE),
        23: Field("sparse_tensors", refuse=SPARSE),
    },
)
_NODE = Schema(
    "NodeProto",
    {
        1: Field("input", "text", repeated=True),
        2: Field("output", "text", repeated=True),
        3: Field("name", "text"),
        4: Field("op_type", "text"),
        5: Field("attribute", _ATTRIBUTE, repeated=True),
        6: Field("doc_string", "text"),
        7: Field("domain", "text"),
        8: Field("overload", "text"),
        9: Field("metadata_props", _ENTRY, repeated=True),
        10: Field("device_configurations", refuse=KEPT.format("several devices")),
    },
)
_GRAPH = Schema(
    "GraphProto",
    {
        1: Field("node", _NODE, repeated=True),
        2: Field("name", "text"),
        5: Field("initializer", _TENSOR, repeated=True),
        10: Field("doc_string", "text"),
        11: Field("input", _VALUE, repeated=True),
        12: Field("output", _VALUE, repeated=True),
        13: Field("value_info", refuse=KEPT.format("shapes of its own within (value_info)")),
        14: Field("quantization_annotation", refuse=KEPT.format("annotations of quantization")),
        15: Field("sparse_initializer", refuse=SPARSE),
        16: Field("metadata_props", _ENTRY, repeated=True),
    },
)

MODEL = Schema(
    "ModelProto",
    {
        1: Field("ir_version"),
        2: Field("producer_name", "text"),
        3: Field("producer_version", "text"),
        4: Field("domain", "text"),
        5: Field("model_version"),
        6: Field("doc_string", "text"),
        7: Field("graph", _GRAPH),
        8: Field(
            "opset_import",
            Schema("OperatorSetIdProto", {1: Field("domain", "text"), 2: Field("version")}),
            repeated=True,
        ),
        14: Field("metadata_props", _ENTRY, repeated=True),
        20: Field("training_info", refuse=KEPT.format("steps of a training")),
        25: Field("functions", refuse="it defines functions; write it only with ONNX's operators"),
        26: Field("configuration", refuse=KEPT.format("several devices")),
    },
)


_STATED = {"value_info": _VALUE, "external_data": _ENTRY}
"""Refused in datafree's own files, and read in others."""


def _foreign(schema: Schema) -> Schema:
    fields = {number: _foreign_field(schema, field) for number, field in schema.fields.items()}
    return Schema(schema.name, fields)


def _foreign_field(schema: Schema, field: Field) -> Field:
    """The field as other exporters write it: with shapes of its own, weights in other files, and text of any length."""
    if field.name in _STATED:
        return Field(field.name, _foreign(_STATED[field.name]), repeated=True)
    if field.refuse is not None:
        return replace(
            field, refuse=field.refuse.replace("no file written by datafree has; write it again", "is not read here")
        )
    if field.name == "doc_string" or (schema is _ENTRY and field.name == "value"):
        return replace(field, kind="bytes")
    return field if isinstance(field.kind, str) else replace(field, kind=_foreign(field.kind))


FOREIGN = _foreign(MODEL)
"""The same for the files of other exporters. Text that may be long is not decoded."""
