"""reference_prototxt/ against the original's files, as messages, and against its generator."""

import pytest
import reference_nets
from golden import GOLDEN, load
from reference_nets import FOLDER, UNITS, WIDTHS

from port import schema
from port.prototxt import parse, read_net

STEP = load("train_step", "train20_step")


def parsed(text, message=None):
    return parse(text, message or schema.NetParameter, "test")


def net(name):
    return parsed((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(reference_nets.files()))
def test_committed_file_is_what_the_generator_writes(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == reference_nets.files()[name]


def test_deploy_20_equals_the_released_file():
    theirs = parsed((GOLDEN / "upgrade" / "sphereface_deploy.prototxt").read_text(encoding="utf-8"))
    assert net("sphereface_deploy.prototxt") == theirs


def test_deploy_20_upgrades_as_the_original_upgrades_it():
    theirs = GOLDEN / "upgrade" / "sphereface_deploy.upgraded.prototxt"
    assert read_net(FOLDER / "sphereface_deploy.prototxt") == parsed(
        theirs.read_text(encoding="utf-8")
    )


def test_train_20_equals_the_original_between_data_and_head():
    """The golden step feeds data by Input layers and has 100 classes at a later lambda."""
    ours, theirs = net("sphereface_model.prototxt"), parsed(STEP.meta["prototxt"])
    assert ours.name == theirs.name
    head = next(layer for layer in theirs.layer if layer.name == "fc6").margin_inner_product_param
    head.num_output, head.iteration = 10572, 0
    assert list(ours.layer[1:]) == list(theirs.layer[2:])


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("sphereface_deploy.prototxt", "deploy20_slim"),
        ("sphereface_64_deploy.prototxt", "deploy64_slim"),
    ],
)
def test_deploy_nets_have_the_original_layers_and_blobs(name, case):
    ours, theirs = net(name), load("deploy", case).meta
    with_params = [layer for layer in ours.layer if layer.type != "Eltwise"]
    assert [[layer.name, layer.type] for layer in with_params] == [
        layer[:2] for layer in theirs["param_layers"]
    ]
    widths = {layer[0]: layer[2][0][0] for layer in theirs["param_layers"] if "conv" in layer[0]}
    assert {
        layer.name: layer.convolution_param.num_output
        for layer in ours.layer
        if layer.type == "Convolution"
    } == widths
    blobs = dict.fromkeys(top for layer in ours.layer for top in layer.top)
    assert ["data", *blobs] == [name for name in theirs["blob_names"] if "_split_" not in name]


@pytest.mark.parametrize("layers", sorted(UNITS))
def test_a_net_has_the_depth_of_its_name(layers):
    """Counted in convolutions; the released 64-layer file lacks one unit of two, so it has 62."""
    deploy = net(reference_nets.file_names(layers)[1])
    convolutions = [layer for layer in deploy.layer if layer.type == "Convolution"]
    assert len(convolutions) == {64: 62}.get(layers, layers)
    assert {layer.convolution_param.num_output for layer in convolutions} == set(WIDTHS)


@pytest.mark.parametrize("layers", sorted(UNITS))
def test_train_and_deploy_nets_share_their_body(layers):
    model, deploy = (net(name) for name in reference_nets.file_names(layers))
    assert list(model.layer[1:-2]) == list(deploy.layer)
    assert [layer.type for layer in model.layer[-2:]] == ["MarginInnerProduct", "SoftmaxWithLoss"]
    assert model.name == deploy.name == f"SpherefaceNet-{layers}"


def test_data_layer_and_solver_hold_the_published_settings():
    data = net("sphereface_model.prototxt").layer[0]
    assert data == parsed(
        'name: "data" type: "ImageData" top: "data" top: "label" '
        "transform_param { mean_value: [127.5, 127.5, 127.5] scale: 0.0078125 mirror: true } "
        'image_data_param { source: "data/CASIA-WebFace-112X96.txt" batch_size: 256 '
        "shuffle: true }",
        schema.LayerParameter,
    )
    text = (FOLDER / "sphereface_solver.prototxt").read_text(encoding="utf-8")
    assert parsed(text, schema.SolverParameter) == schema.SolverParameter(
        net="code/sphereface_model.prototxt",
        base_lr=0.1,
        lr_policy="multistep",
        gamma=0.1,
        stepvalue=[16000, 24000, 28000],
        max_iter=28000,
        display=100,
        momentum=0.9,
        weight_decay=0.0005,
        snapshot_prefix="result/sphereface_model",
        solver_mode="GPU",
    )
