"""The files in deploy/ fit Ray, KubeRay and each other."""

import copy
import re
import shlex
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from msvqa.cli import build_parser
from msvqa.recipe import load

ROOT = Path(__file__).parents[1]
KUBERAY = ROOT / "deploy" / "kuberay"


def read(name):
    return yaml.safe_load((KUBERAY / f"{name}.yaml").read_text(encoding="utf-8"))


def cluster_of(name):
    spec = read(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def pods_of(name):
    cluster = cluster_of(name)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.fixture(scope="module")
def validator():
    schema = yaml.safe_load((ROOT / "tests" / "assets" / "kuberay.schema.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_resources_fit_the_schema_of_kuberay(validator, name):
    validator.validate(read(name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayVersion"), 2.6),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "workerGroupSpecs", 0, "minReplica"), 1),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "image"), None),
        (("spec", "workerGroupSpecs", 1, "template", "spec", "volume"), []),
        (("spec", "entrypoint"), "python x.py"),
        (("metadata", "name"), "x" * 64),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_schema_finds_mistakes(validator, path, value):
    resource = copy.deepcopy(read("raycluster"))
    place = resource
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not validator.is_valid(resource)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kubernetes_takes_the_pods(name):
    for pod in pods_of(name):
        content = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
        kubernetes_validate.validate(content, "1.30", strict=True)
    for content in yaml.safe_load_all((KUBERAY / "storage.yaml").read_text(encoding="utf-8")):
        kubernetes_validate.validate(content, "1.30", strict=True)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_share_storage_and_need_a_token(name):
    claim, policy = yaml.safe_load_all((KUBERAY / "storage.yaml").read_text(encoding="utf-8"))
    labels = policy["spec"]["podSelector"]["matchLabels"]
    cluster = cluster_of(name)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"].rsplit(".", 1)[0] == ray.__version__.rsplit(".", 1)[0]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert group["template"]["metadata"]["labels"] == labels
    for pod in pods_of(name):
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        shared = volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"]
        assert shared == claim["metadata"]["name"]
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


def head_environment(content):
    """Return what the head of a cluster file gets; None where the file starts no head."""
    if "head_start_ray_commands" in content:
        (start,) = [c for c in content["head_start_ray_commands"] if "ray start" in c]
        return dict(word.split("=") for word in start.partition("ray start")[0].split())
    cluster = content["spec"].get("rayClusterSpec", content["spec"])
    if "headGroupSpec" not in cluster:
        return None
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_every_head_gives_a_stopped_job_the_time_for_a_checkpoint():
    files = [ROOT / "cluster.yaml", *(ROOT / "deploy").rglob("*.yaml")]
    heads = {
        file.stem: environment
        for file in files
        for content in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if (environment := head_environment(content)) is not None
    }
    assert {*heads} == {"cluster", "gcp", "on-premises", "raycluster", "rayjob"}
    assert all(head["RAY_JOB_STOP_WAIT_TIME_S"] == "60" for head in heads.values()), heads


def test_the_job_of_kuberay_is_one_that_can_be_parsed():
    python, file, *words = shlex.split(read("rayjob")["spec"]["entrypoint"])
    assert python == "python" and (ROOT / file).is_file()
    arguments = build_parser().parse_args([Path(file).stem, *words])
    recipe = load(ROOT / arguments.recipe, arguments.overrides)
    assert all(
        str(path).startswith("/shared/")
        for path in (recipe.runs, recipe.data.root, recipe.data.prepared)
    )


def test_the_image_has_what_a_job_needs():
    lines = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert {"msvqa", "ray_jobs", "configs", "setup.py", "README.md"} <= copied
    (base,) = [line.split(":")[1] for line in lines if line.startswith("FROM")]
    assert base.startswith(f"{ray.__version__.rsplit('.', 1)[0]}.")


def test_the_table_of_decode_cores_follows_the_formula():
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    video_tflop, handing_on, busy = 2.15, 0.4, 0.8
    rows = re.findall(r"^\| [^|,]+, (\d[^|]*) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    assert len(rows) == 3
    for cells in rows:
        tflops, *counts = ([float(n) for n in cell.split(" to ")] for cell in cells)
        rates = [speed / video_tflop for speed in tflops]
        assert [round(rate) for rate in rates] == [round(n) for n in counts[0]]
        for seconds, cores in zip((0.07, 0.19), counts[1:], strict=True):
            wanted = [rate * seconds * (1 + handing_on) / busy for rate in rates]
            assert [round(n) for n in wanted] == cores
