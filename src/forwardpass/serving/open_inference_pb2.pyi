from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NamedModel(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Live(_message.Message):
    __slots__ = ("live",)
    LIVE_FIELD_NUMBER: _ClassVar[int]
    live: bool
    def __init__(self, live: _Optional[bool] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("ready",)
    READY_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    def __init__(self, ready: _Optional[bool] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("name", "version", "extensions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    extensions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., extensions: _Optional[_Iterable[str]] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("name", "versions", "platform", "inputs", "outputs")
    class Tensor(_message.Message):
        __slots__ = ("name", "datatype", "shape")
        NAME_FIELD_NUMBER: _ClassVar[int]
        DATATYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        name: str
        datatype: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    versions: _containers.RepeatedScalarFieldContainer[str]
    platform: str
    inputs: _containers.RepeatedCompositeFieldContainer[Metadata.Tensor]
    outputs: _containers.RepeatedCompositeFieldContainer[Metadata.Tensor]
    def __init__(self, name: _Optional[str] = ..., versions: _Optional[_Iterable[str]] = ..., platform: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Metadata.Tensor, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[Metadata.Tensor, _Mapping]]] = ...) -> None: ...

class Configured(_message.Message):
    __slots__ = ("config",)
    class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_INVALID: _ClassVar[Configured.DataType]
        TYPE_BOOL: _ClassVar[Configured.DataType]
        TYPE_UINT8: _ClassVar[Configured.DataType]
        TYPE_UINT16: _ClassVar[Configured.DataType]
        TYPE_UINT32: _ClassVar[Configured.DataType]
        TYPE_UINT64: _ClassVar[Configured.DataType]
        TYPE_INT8: _ClassVar[Configured.DataType]
        TYPE_INT16: _ClassVar[Configured.DataType]
        TYPE_INT32: _ClassVar[Configured.DataType]
        TYPE_INT64: _ClassVar[Configured.DataType]
        TYPE_FP16: _ClassVar[Configured.DataType]
        TYPE_FP32: _ClassVar[Configured.DataType]
        TYPE_FP64: _ClassVar[Configured.DataType]
        TYPE_STRING: _ClassVar[Configured.DataType]
        TYPE_BF16: _ClassVar[Configured.DataType]
    TYPE_INVALID: Configured.DataType
    TYPE_BOOL: Configured.DataType
    TYPE_UINT8: Configured.DataType
    TYPE_UINT16: Configured.DataType
    TYPE_UINT32: Configured.DataType
    TYPE_UINT64: Configured.DataType
    TYPE_INT8: Configured.DataType
    TYPE_INT16: Configured.DataType
    TYPE_INT32: Configured.DataType
    TYPE_INT64: Configured.DataType
    TYPE_FP16: Configured.DataType
    TYPE_FP32: Configured.DataType
    TYPE_FP64: Configured.DataType
    TYPE_STRING: Configured.DataType
    TYPE_BF16: Configured.DataType
    class Input(_message.Message):
        __slots__ = ("name", "data_type", "dims", "optional")
        NAME_FIELD_NUMBER: _ClassVar[int]
        DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
        DIMS_FIELD_NUMBER: _ClassVar[int]
        OPTIONAL_FIELD_NUMBER: _ClassVar[int]
        name: str
        data_type: Configured.DataType
        dims: _containers.RepeatedScalarFieldContainer[int]
        optional: bool
        def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[Configured.DataType, str]] = ..., dims: _Optional[_Iterable[int]] = ..., optional: _Optional[bool] = ...) -> None: ...
    class Output(_message.Message):
        __slots__ = ("name", "data_type", "dims")
        NAME_FIELD_NUMBER: _ClassVar[int]
        DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
        DIMS_FIELD_NUMBER: _ClassVar[int]
        name: str
        data_type: Configured.DataType
        dims: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[Configured.DataType, str]] = ..., dims: _Optional[_Iterable[int]] = ...) -> None: ...
    class VersionPolicy(_message.Message):
        __slots__ = ("latest",)
        class Latest(_message.Message):
            __slots__ = ("num_versions",)
            NUM_VERSIONS_FIELD_NUMBER: _ClassVar[int]
            num_versions: int
            def __init__(self, num_versions: _Optional[int] = ...) -> None: ...
        LATEST_FIELD_NUMBER: _ClassVar[int]
        latest: Configured.VersionPolicy.Latest
        def __init__(self, latest: _Optional[_Union[Configured.VersionPolicy.Latest, _Mapping]] = ...) -> None: ...
    class DynamicBatching(_message.Message):
        __slots__ = ("default_priority_level",)
        DEFAULT_PRIORITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
        default_priority_level: int
        def __init__(self, default_priority_level: _Optional[int] = ...) -> None: ...
    class Config(_message.Message):
        __slots__ = ("name", "platform", "version_policy", "max_batch_size", "input", "output", "dynamic_batching", "backend")
        NAME_FIELD_NUMBER: _ClassVar[int]
        PLATFORM_FIELD_NUMBER: _ClassVar[int]
        VERSION_POLICY_FIELD_NUMBER: _ClassVar[int]
        MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
        INPUT_FIELD_NUMBER: _ClassVar[int]
        OUTPUT_FIELD_NUMBER: _ClassVar[int]
        DYNAMIC_BATCHING_FIELD_NUMBER: _ClassVar[int]
        BACKEND_FIELD_NUMBER: _ClassVar[int]
        name: str
        platform: str
        version_policy: Configured.VersionPolicy
        max_batch_size: int
        input: _containers.RepeatedCompositeFieldContainer[Configured.Input]
        output: _containers.RepeatedCompositeFieldContainer[Configured.Output]
        dynamic_batching: Configured.DynamicBatching
        backend: str
        def __init__(self, name: _Optional[str] = ..., platform: _Optional[str] = ..., version_policy: _Optional[_Union[Configured.VersionPolicy, _Mapping]] = ..., max_batch_size: _Optional[int] = ..., input: _Optional[_Iterable[_Union[Configured.Input, _Mapping]]] = ..., output: _Optional[_Iterable[_Union[Configured.Output, _Mapping]]] = ..., dynamic_batching: _Optional[_Union[Configured.DynamicBatching, _Mapping]] = ..., backend: _Optional[str] = ...) -> None: ...
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: Configured.Config
    def __init__(self, config: _Optional[_Union[Configured.Config, _Mapping]] = ...) -> None: ...

class AskedIndex(_message.Message):
    __slots__ = ("ready",)
    READY_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    def __init__(self, ready: _Optional[bool] = ...) -> None: ...

class Index(_message.Message):
    __slots__ = ("models",)
    class Model(_message.Message):
        __slots__ = ("name", "version", "state", "reason")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        name: str
        version: str
        state: str
        reason: str
        def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Index.Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Index.Model, _Mapping]]] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("model_stats",)
    class Duration(_message.Message):
        __slots__ = ("count", "ns")
        COUNT_FIELD_NUMBER: _ClassVar[int]
        NS_FIELD_NUMBER: _ClassVar[int]
        count: int
        ns: int
        def __init__(self, count: _Optional[int] = ..., ns: _Optional[int] = ...) -> None: ...
    class Inference(_message.Message):
        __slots__ = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        SUCCESS_FIELD_NUMBER: _ClassVar[int]
        FAIL_FIELD_NUMBER: _ClassVar[int]
        QUEUE_FIELD_NUMBER: _ClassVar[int]
        COMPUTE_INPUT_FIELD_NUMBER: _ClassVar[int]
        COMPUTE_INFER_FIELD_NUMBER: _ClassVar[int]
        COMPUTE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
        success: Statistics.Duration
        fail: Statistics.Duration
        queue: Statistics.Duration
        compute_input: Statistics.Duration
        compute_infer: Statistics.Duration
        compute_output: Statistics.Duration
        def __init__(self, success: _Optional[_Union[Statistics.Duration, _Mapping]] = ..., fail: _Optional[_Union[Statistics.Duration, _Mapping]] = ..., queue: _Optional[_Union[Statistics.Duration, _Mapping]] = ..., compute_input: _Optional[_Union[Statistics.Duration, _Mapping]] = ..., compute_infer: _Optional[_Union[Statistics.Duration, _Mapping]] = ..., compute_output: _Optional[_Union[Statistics.Duration, _Mapping]] = ...) -> None: ...
    class Model(_message.Message):
        __slots__ = ("name", "version", "inference_count", "execution_count", "inference_stats")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        INFERENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
        EXECUTION_COUNT_FIELD_NUMBER: _ClassVar[int]
        INFERENCE_STATS_FIELD_NUMBER: _ClassVar[int]
        name: str
        version: str
        inference_count: int
        execution_count: int
        inference_stats: Statistics.Inference
        def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., inference_count: _Optional[int] = ..., execution_count: _Optional[int] = ..., inference_stats: _Optional[_Union[Statistics.Inference, _Mapping]] = ...) -> None: ...
    MODEL_STATS_FIELD_NUMBER: _ClassVar[int]
    model_stats: _containers.RepeatedCompositeFieldContainer[Statistics.Model]
    def __init__(self, model_stats: _Optional[_Iterable[_Union[Statistics.Model, _Mapping]]] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("bool_param", "int64_param", "string_param", "double_param", "uint64_param")
    BOOL_PARAM_FIELD_NUMBER: _ClassVar[int]
    INT64_PARAM_FIELD_NUMBER: _ClassVar[int]
    STRING_PARAM_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_PARAM_FIELD_NUMBER: _ClassVar[int]
    UINT64_PARAM_FIELD_NUMBER: _ClassVar[int]
    bool_param: bool
    int64_param: int
    string_param: str
    double_param: float
    uint64_param: int
    def __init__(self, bool_param: _Optional[bool] = ..., int64_param: _Optional[int] = ..., string_param: _Optional[str] = ..., double_param: _Optional[float] = ..., uint64_param: _Optional[int] = ...) -> None: ...

class Contents(_message.Message):
    __slots__ = ("bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents", "fp32_contents", "fp64_contents", "bytes_contents")
    BOOL_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    INT_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    INT64_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    UINT_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    UINT64_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    FP32_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    FP64_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    bool_contents: _containers.RepeatedScalarFieldContainer[bool]
    int_contents: _containers.RepeatedScalarFieldContainer[int]
    int64_contents: _containers.RepeatedScalarFieldContainer[int]
    uint_contents: _containers.RepeatedScalarFieldContainer[int]
    uint64_contents: _containers.RepeatedScalarFieldContainer[int]
    fp32_contents: _containers.RepeatedScalarFieldContainer[float]
    fp64_contents: _containers.RepeatedScalarFieldContainer[float]
    bytes_contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, bool_contents: _Optional[_Iterable[bool]] = ..., int_contents: _Optional[_Iterable[int]] = ..., int64_contents: _Optional[_Iterable[int]] = ..., uint_contents: _Optional[_Iterable[int]] = ..., uint64_contents: _Optional[_Iterable[int]] = ..., fp32_contents: _Optional[_Iterable[float]] = ..., fp64_contents: _Optional[_Iterable[float]] = ..., bytes_contents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "parameters", "inputs", "outputs", "raw_input_contents")
    class Input(_message.Message):
        __slots__ = ("name", "datatype", "shape", "parameters", "contents")
        class ParametersEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: Parameter
            def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Parameter, _Mapping]] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        DATATYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        PARAMETERS_FIELD_NUMBER: _ClassVar[int]
        CONTENTS_FIELD_NUMBER: _ClassVar[int]
        name: str
        datatype: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        parameters: _containers.MessageMap[str, Parameter]
        contents: Contents
        def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., parameters: _Optional[_Mapping[str, Parameter]] = ..., contents: _Optional[_Union[Contents, _Mapping]] = ...) -> None: ...
    class Output(_message.Message):
        __slots__ = ("name", "parameters")
        class ParametersEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: Parameter
            def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Parameter, _Mapping]] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        PARAMETERS_FIELD_NUMBER: _ClassVar[int]
        name: str
        parameters: _containers.MessageMap[str, Parameter]
        def __init__(self, name: _Optional[str] = ..., parameters: _Optional[_Mapping[str, Parameter]] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Parameter
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Parameter, _Mapping]] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RAW_INPUT_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    parameters: _containers.MessageMap[str, Parameter]
    inputs: _containers.RepeatedCompositeFieldContainer[InferRequest.Input]
    outputs: _containers.RepeatedCompositeFieldContainer[InferRequest.Output]
    raw_input_contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., parameters: _Optional[_Mapping[str, Parameter]] = ..., inputs: _Optional[_Iterable[_Union[InferRequest.Input, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[InferRequest.Output, _Mapping]]] = ..., raw_input_contents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "parameters", "outputs", "raw_output_contents")
    class Output(_message.Message):
        __slots__ = ("name", "datatype", "shape")
        NAME_FIELD_NUMBER: _ClassVar[int]
        DATATYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        name: str
        datatype: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Parameter
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Parameter, _Mapping]] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RAW_OUTPUT_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    parameters: _containers.MessageMap[str, Parameter]
    outputs: _containers.RepeatedCompositeFieldContainer[InferResponse.Output]
    raw_output_contents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., parameters: _Optional[_Mapping[str, Parameter]] = ..., outputs: _Optional[_Iterable[_Union[InferResponse.Output, _Mapping]]] = ..., raw_output_contents: _Optional[_Iterable[bytes]] = ...) -> None: ...
