//! The messages of an ONNX file, with the field numbers of the official `onnx.proto`; fields that we neither write nor
//! read are left out, as protocol buffers allow.
//! Source: `onnx/onnx.proto` of the onnx project, IR version 7 and later.

use std::collections::HashMap;

/// `TensorProto.DataType` of what we store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    Float = 1,
    Uint8 = 2,
    Int8 = 3,
    Int32 = 6,
}

impl ElementType {
    /// Bytes of one number.
    pub(super) fn num_bytes(self) -> usize {
        match self {
            Self::Float | Self::Int32 => 4,
            Self::Uint8 | Self::Int8 => 1,
        }
    }

    /// The type with this number. `None` for one that we do not store.
    pub(super) fn of(number: i32) -> Option<Self> {
        [Self::Float, Self::Uint8, Self::Int8, Self::Int32].into_iter().find(|kind| *kind as i32 == number)
    }
}

/// `AttributeProto.AttributeType` of what we store.
#[derive(Debug, Clone, Copy)]
enum AttributeType {
    Int = 2,
    Ints = 7,
}

/// A whole file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// Version of the operators that nodes name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OperatorSetIdProto {
    /// Empty for the standard operators.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A line of metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Nodes in an order in which they can be computed, and their constants.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
}

/// A setting of an operation. Presence is explicit: readers tell a zero from nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// A constant; its numbers are little-endian, row-major.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
}

/// Name, type and shape of an input or output.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<TypeProto>,
}

/// A type; ours are tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// Dimensions.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DimensionProto {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
}

/// A fixed size, or the name of one that the caller chooses.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum DimensionValue {
    #[prost(int64, tag = "1")]
    Fixed(i64),
    #[prost(string, tag = "2")]
    Named(String),
}

impl NodeProto {
    /// An operation whose only output gives it its name.
    pub(super) fn new(op_type: &str, inputs: &[&str], output: &str) -> Self {
        Self {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: format!("{output}/{op_type}"),
            op_type: op_type.to_owned(),
            attribute: Vec::new(),
        }
    }

    /// The same with an integer attribute.
    pub(super) fn with_int(mut self, name: &str, value: i64) -> Self {
        let kind = AttributeType::Int as i32;
        self.attribute.push(AttributeProto { name: name.to_owned(), i: Some(value), ints: Vec::new(), kind });
        self
    }

    /// The same with an attribute of several integers.
    pub(super) fn with_ints(mut self, name: &str, values: &[usize]) -> Self {
        let (ints, kind) = (values.iter().map(|&value| value as i64).collect(), AttributeType::Ints as i32);
        self.attribute.push(AttributeProto { name: name.to_owned(), i: None, ints, kind });
        self
    }

    /// The integers of an attribute; none when it is not there.
    pub(super) fn ints(&self, name: &str) -> &[i64] {
        self.attribute.iter().find(|attribute| attribute.name == name).map_or(&[], |attribute| &attribute.ints)
    }

    /// The only output; empty when there is none.
    pub(super) fn result(&self) -> &str {
        self.output.first().map_or("", String::as_str)
    }
}

impl TensorProto {
    fn new(name: &str, dims: &[usize], kind: ElementType, bytes: Vec<u8>) -> Self {
        Self {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: kind as i32,
            name: name.to_owned(),
            raw_data: Some(bytes),
        }
    }

    /// Of 32-bit floats.
    pub(super) fn floats(name: &str, dims: &[usize], values: &[f32]) -> Self {
        Self::new(name, dims, ElementType::Float, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Of unsigned bytes.
    pub(super) fn uint8(name: &str, dims: &[usize], values: &[u8]) -> Self {
        Self::new(name, dims, ElementType::Uint8, values.to_vec())
    }

    /// Of 32-bit integers.
    pub(super) fn int32(name: &str, dims: &[usize], values: &[i32]) -> Self {
        Self::new(name, dims, ElementType::Int32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The type of its numbers. `None` for one that we do not store.
    pub(super) fn element_type(&self) -> Option<ElementType> {
        ElementType::of(self.data_type)
    }

    /// Its shape.
    pub(super) fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
    }

    /// How many numbers its shape asks for.
    pub(super) fn num_elements(&self) -> usize {
        self.shape().iter().fold(1, |product, &dim| product.saturating_mul(dim))
    }

    /// Its numbers, exactly: 64-bit floats hold all of these types. Fewer than its shape says when it was composed from
    /// shapes alone.
    pub(super) fn values(&self) -> Vec<f64> {
        let bytes = self.raw_data.as_deref().unwrap_or_default();
        let fours = || bytes.chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]);
        match self.element_type() {
            Some(ElementType::Float) => fours().map(|four| f64::from(f32::from_le_bytes(four))).collect(),
            Some(ElementType::Int32) => fours().map(|four| f64::from(i32::from_le_bytes(four))).collect(),
            Some(ElementType::Int8) => bytes.iter().map(|&byte| f64::from(byte as i8)).collect(),
            Some(ElementType::Uint8) => bytes.iter().map(|&byte| f64::from(byte)).collect(),
            None => Vec::new(),
        }
    }
}

impl ValueInfoProto {
    /// A tensor of floats.
    pub(super) fn floats(name: &str, dims: Vec<DimensionValue>) -> Self {
        let dim = dims.into_iter().map(|value| DimensionProto { value: Some(value) }).collect();
        let tensor = TensorTypeProto { elem_type: ElementType::Float as i32, shape: Some(TensorShapeProto { dim }) };
        Self { name: name.to_owned(), kind: Some(TypeProto { tensor_type: Some(tensor) }) }
    }
}

impl GraphProto {
    /// Constants by name.
    pub(super) fn constants(&self) -> HashMap<&str, &TensorProto> {
        self.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect()
    }
}
