"""Bring nets and solvers of older Caffe versions to today's schema, in place.

Source: the semantics of BVLC Caffe's util/upgrade_proto.cpp. Each function changes its message
and returns notes in words, empty when nothing was old.
"""

from __future__ import annotations

from typing import Any

from port import schema
from port.errors import PrototxtError, close_matches

# V0 type word -> V1 LayerType. "padding" layers are folded into the layer that reads them.
_V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 field -> {V0 type: (message of the V1 layer, its field)}; "*" stands for every type.
_V0_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": {
        "conv": ("convolution_param", "num_output"),
        "innerproduct": ("inner_product_param", "num_output"),
    },
    "biasterm": {
        "conv": ("convolution_param", "bias_term"),
        "innerproduct": ("inner_product_param", "bias_term"),
    },
    "weight_filler": {
        "conv": ("convolution_param", "weight_filler"),
        "innerproduct": ("inner_product_param", "weight_filler"),
    },
    "bias_filler": {
        "conv": ("convolution_param", "bias_filler"),
        "innerproduct": ("inner_product_param", "bias_filler"),
    },
    "pad": {"conv": ("convolution_param", "pad"), "pool": ("pooling_param", "pad")},
    "kernelsize": {
        "conv": ("convolution_param", "kernel_size"),
        "pool": ("pooling_param", "kernel_size"),
    },
    "group": {"conv": ("convolution_param", "group")},
    "stride": {"conv": ("convolution_param", "stride"), "pool": ("pooling_param", "stride")},
    "pool": {"pool": ("pooling_param", "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": ("lrn_param", "local_size")},
    "alpha": {"lrn": ("lrn_param", "alpha")},
    "beta": {"lrn": ("lrn_param", "beta")},
    "k": {"lrn": ("lrn_param", "k")},
    "source": {
        "data": ("data_param", "source"),
        "hdf5_data": ("hdf5_data_param", "source"),
        "images": ("image_data_param", "source"),
        "window_data": ("window_data_param", "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "scale": {"*": ("transform_param", "scale")},
    "meanfile": {"*": ("transform_param", "mean_file")},
    "cropsize": {"*": ("transform_param", "crop_size")},
    "mirror": {"*": ("transform_param", "mirror")},
    "batchsize": {
        "data": ("data_param", "batch_size"),
        "hdf5_data": ("hdf5_data_param", "batch_size"),
        "images": ("image_data_param", "batch_size"),
        "window_data": ("window_data_param", "batch_size"),
    },
    "rand_skip": {"data": ("data_param", "rand_skip"), "images": ("image_data_param", "rand_skip")},
    "shuffle_images": {"images": ("image_data_param", "shuffle")},
    "new_height": {"images": ("image_data_param", "new_height")},
    "new_width": {"images": ("image_data_param", "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": ("window_data_param", "fg_threshold")},
    "det_bg_threshold": {"window_data": ("window_data_param", "bg_threshold")},
    "det_fg_fraction": {"window_data": ("window_data_param", "fg_fraction")},
    "det_context_pad": {"window_data": ("window_data_param", "context_pad")},
    "det_crop_mode": {"window_data": ("window_data_param", "crop_mode")},
    "hdf5_output_param": {"hdf5_output": ("hdf5_output_param", "file_name")},
}
_V0_PLAIN = ("name", "blobs", "blobs_lr", "weight_decay")

# V1 LayerType -> today's type, where it is not the words of the name run together.
_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
INPUT_NOTE = "turned into an Input layer"
_TRANSFORMED = ("data_param", "image_data_param", "window_data_param")
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def v1_type(name: str) -> str:
    """Today's layer type of a V1 LayerType name: "SOFTMAX_LOSS" -> "SoftmaxWithLoss"."""
    return _V1_TYPES.get(name, "".join(word.capitalize() for word in name.split("_")))


def upgrade_net(net: Any, where: str = "net") -> list[str]:
    """Upgrade a NetParameter in place, in Caffe's order; returns a note for each step taken.

    where: name of the file, for messages. Raises PrototxtError for an old net that has no
    meaning in today's schema. Source: UpgradeNetAsNeeded.
    """
    notes = _v0_to_v1(net, where)
    to_today = _data_transforms(net) + _v1_to_today(net, where)
    notes = notes or to_today  # a V0 net passes through V1, which is no news
    return notes + _legacy_inputs(net, where) + _batch_norm_params(net) + _ignored_transforms(net)


def upgrade_solver(solver: Any, where: str = "solver") -> list[str]:
    """Upgrade a SolverParameter, and the nets inside it, in place; returns notes.

    Raises PrototxtError when the old ``solver_type`` and today's ``type`` are both given.
    Source: UpgradeSolverAsNeeded; Caffe leaves nets inside a solver as they are.
    """
    notes = []
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise PrototxtError(
                f"{where}: 'solver_type' (old) and 'type' are both given: keep only 'type'"
            )
        old = schema.enum_name(solver, "solver_type")
        solver.type = _SOLVER_TYPES[old]
        solver.ClearField("solver_type")
        notes.append(f'solver_type: {old} read as type: "{solver.type}"')
    for field in ("net_param", "train_net_param"):
        if solver.HasField(field):
            notes += upgrade_net(getattr(solver, field), where)
    for net in solver.test_net_param:
        notes += upgrade_net(net, where)
    return notes


def _v0_to_v1(net: Any, where: str) -> list[str]:
    if not any(layer.HasField("layer") for layer in net.layers):
        return []
    olds = _without_padding_layers(net, where)
    notes = [f"V0 layers (2013) upgraded: {len(olds)}"]
    del net.layers[:]
    for old in olds:
        notes += _v0_layer(old, net.layers.add(), where)
    return notes


def _without_padding_layers(net: Any, where: str) -> list[Any]:
    """Copies of the V0 layers, each "padding" layer turned into the pad of its reader.

    Source: UpgradeV0PaddingLayers.
    """
    maker: dict[str, Any] = dict.fromkeys(net.input)
    kept = []
    for original in net.layers:
        layer = schema.V1LayerParameter()
        layer.CopyFrom(original)
        for index, bottom in enumerate(layer.bottom):
            if bottom not in maker:
                raise PrototxtError(
                    f"{where}: layer '{layer.layer.name}' reads the unknown blob '{bottom}'"
                    + close_matches(bottom, maker)
                )
            if maker[bottom] is not None and maker[bottom].layer.type == "padding":
                _take_padding(layer, index, maker[bottom], where)
        if layer.layer.type != "padding":
            kept.append(layer)
        maker.update(dict.fromkeys(layer.top, layer))
    return kept


def _take_padding(layer: Any, index: int, padding: Any, where: str) -> None:
    """Let a layer pad its bottom itself and read what the padding layer reads."""
    if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
        raise PrototxtError(
            f"{where}: layer '{layer.layer.name}' ({layer.layer.type}) reads the padding layer "
            f"'{padding.layer.name}': only conv and pool layers with one bottom can"
        )
    if len(padding.bottom) != 1:
        raise PrototxtError(
            f"{where}: padding layer '{padding.layer.name}' has {len(padding.bottom)} bottoms, "
            "expected 1"
        )
    layer.layer.pad = padding.layer.pad
    layer.bottom[index] = padding.bottom[0]


def _v0_layer(old: Any, new: Any, where: str) -> list[str]:
    """Write a V0 layer as a V1 layer. Source: UpgradeV0LayerParameter.

    A field that the layer's type does not have is dropped with a note, as Caffe does.
    """
    if not old.HasField("layer"):
        raise PrototxtError(f"{where}: V0 and V1 layers in one net: layer '{old.name}' is V1")
    v0 = old.layer
    if v0.type not in _V0_TYPES:
        hint = close_matches(v0.type, _V0_TYPES)
        raise PrototxtError(f"{where}: layer '{v0.name}': unknown V0 type '{v0.type}'{hint}")
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    new.type = schema.enum("V1LayerParameter.LayerType", _V0_TYPES[v0.type])
    given = [(field.name, value) for field, value in v0.ListFields() if field.name != "type"]
    dropped = [name for name, value in given if not _v0_field(v0.type, name, value, new)]
    return [
        f"layer '{v0.name}': '{name}' means nothing to '{v0.type}': dropped" for name in dropped
    ]


def _v0_field(kind: str, name: str, value: Any, new: Any) -> bool:
    """Put the value of a V0 field where V1 has it; False when it has no place."""
    if name in _V0_PLAIN:
        _assign(new, name, value)
        return True
    places = _V0_FIELDS.get(name, {})
    place = places.get("*") or places.get(kind)
    if place is not None:
        plain = value.file_name if name == "hdf5_output_param" else value
        _assign(getattr(new, place[0]), place[1], plain)
    return place is not None


def _assign(message: Any, name: str, value: Any) -> None:
    """Set a field whatever its kind; one number for a repeated field is appended."""
    field = schema.fields(message.DESCRIPTOR.name)[name]
    if field.repeated and isinstance(value, int):
        getattr(message, name).append(value)
    elif field.repeated:
        getattr(message, name).extend(value)
    elif schema.is_message(field):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def _data_transforms(net: Any) -> list[str]:
    """Source: UpgradeNetDataTransformation; like Caffe, for V1 data layers only."""
    moved = 0
    for layer in net.layers:
        for param in _TRANSFORMED:
            for field in _old_transforms(layer, param):
                setattr(layer.transform_param, field, getattr(getattr(layer, param), field))
                getattr(layer, param).ClearField(field)
                moved += 1
    return [f"data layer fields moved to transform_param: {moved}"] if moved else []


def _old_transforms(layer: Any, param: str) -> list[str]:
    if not layer.HasField(param):
        return []
    message = getattr(layer, param)
    return [field for field in _TRANSFORM_FIELDS if message.HasField(field)]


def _v1_to_today(net: Any, where: str) -> list[str]:
    if not net.layers:
        return []
    if net.layer:
        raise PrototxtError(
            f"{where}: 'layers' (V1) and 'layer' in one net: write all of them as 'layer' "
            "(Caffe drops those written as 'layer')"
        )
    for old in net.layers:
        _v1_layer(old, net.layer.add(), where)
    count = len(net.layers)
    net.ClearField("layers")
    return [f"V1 layers (2014) upgraded: {count}"]


def _v1_layer(old: Any, new: Any, where: str) -> None:
    """Write a V1 layer as today's. Source: UpgradeV1LayerParameter."""
    for field, value in old.ListFields():
        special = _V1_FIELDS.get(field.name)
        if special is None:
            _assign(new, field.name, value)
            continue
        if special == "type":
            new.type = v1_type(schema.enum_name(old, "type"))
            continue
        for index, item in enumerate(value):
            while len(new.param) <= index:
                new.param.add()
            setattr(new.param[index], special, item)


# V1 field -> what becomes of it; the rest keep their name.
_V1_FIELDS = {
    "type": "type",
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def _legacy_inputs(net: Any, where: str) -> list[str]:
    """``input`` with ``input_shape`` or ``input_dim`` -> a first layer. Source: UpgradeNetInput."""
    if not net.input:
        return []
    names = list(net.input)
    shapes = _input_shapes(net, where)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    if not shapes:
        return [f"input {', '.join(names)} has no input_dim or input_shape and is dropped"]
    layer = schema.LayerParameter(name="input", type="Input", top=names)
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    net.layer.insert(0, layer)
    return [f"input {', '.join(names)} {INPUT_NOTE}"]


def _input_shapes(net: Any, where: str) -> list[list[int]]:
    """The shape of each input; input_shape wins over input_dim, as in Caffe."""
    count = len(net.input)
    if net.input_shape:
        shapes = [list(shape.dim) for shape in net.input_shape]
    else:
        dims = list(net.input_dim)
        if len(dims) % 4:
            raise PrototxtError(f"{where}: {len(dims)} input_dim given, expected 4 for each input")
        shapes = [dims[start : start + 4] for start in range(0, len(dims), 4)]
    if shapes and len(shapes) != count:
        raise PrototxtError(f"{where}: {count} inputs but {len(shapes)} input shapes")
    return shapes


def _batch_norm_params(net: Any) -> list[str]:
    """Old BatchNorm layers list three lr_mult 0 params; today they must have none.

    Source: UpgradeNetBatchNorm.
    """
    old = [layer for layer in net.layer if layer.type == "BatchNorm" and len(layer.param) == 3]
    for layer in old:
        layer.ClearField("param")
    return [f"BatchNorm layers whose three params were dropped: {len(old)}"] if old else []


def _ignored_transforms(net: Any) -> list[str]:
    """Caffe ignores the old transform fields of today's layers in silence; say so."""
    return [
        f"layer '{layer.name}': {param}.{field} is ignored: write it in transform_param"
        for layer in net.layer
        for param in _TRANSFORMED
        for field in _old_transforms(layer, param)
    ]
