//! Going on in a work dir of mmengine's: its checkpoint is made by torch from a run of ours, so the
//! losses that follow must be those of that run, bit for bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use segslurm::testing::config;
use segslurm::testing::experiment::Experiment;

use crate::harness::{self, Steps, ends_in, exact, skip, steps, text};
use crate::learning::cpu;

/// A python with torch.
pub(crate) fn torch() -> Option<&'static str> {
    let candidates = ["python3", "/usr/bin/python3"];
    let has = |python: &&str| {
        Command::new(python)
            .args(["-c", "import torch"])
            .output()
            .is_ok_and(|it| it.status.success())
    };
    let found = candidates.into_iter().find(has);
    if found.is_none() {
        skip(
            "no python3 here has torch (apt-get install python3-torch), so no checkpoint of \
             mmengine's was made",
        );
    }
    found
}

/// Writes what mmengine's runner would have saved at the point of a checkpoint of ours: the same
/// weights, state and counts under torch's names and numbers. Objects of classes that are not there
/// when it is read lie in it as well.
const SCRIPT: &str = r"
import json, struct, sys, collections
import torch
ours, out, kind = sys.argv[1:4]
with open(ours, 'rb') as file:
    length, = struct.unpack('<Q', file.read(8))
    header = json.loads(file.read(length))
    data = file.read()
run = json.loads(header.pop('__metadata__')['segslurm'])['run']
TYPES = {'F32': torch.float32, 'I64': torch.int64}
def tensor(it):
    begin, end = it['data_offsets']
    return torch.frombuffer(bytearray(data[begin:end]), dtype=TYPES[it['dtype']]).view(it['shape']).clone()
tensors = {name: tensor(it) for name, it in header.items()}
order = json.load(open(sys.argv[4]))
assert sorted(order) == sorted(name for name in tensors if not name.startswith('optimizer.'))
state_dict = collections.OrderedDict((name, tensors[name]) for name in order)
state_dict._metadata = collections.OrderedDict()
params = [name for name in order if name.split('.')[-1] not in ('running_mean', 'running_var', 'num_batches_tracked')]
state = {}
for number, name in enumerate(params):
    prefix = f'optimizer.{name}.'
    values = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
    if values:
        state[number] = values
defaults = dict(lr=0.01, initial_lr=0.01, momentum=0.9, weight_decay=0.0005, dampening=0, nesterov=False, maximize=False, foreach=None)
groups = [dict(defaults, params=[number]) for number in range(len(params))] if kind == 'paramwise' else [dict(defaults, params=list(range(len(params))))]
class HistoryBuffer:
    def __init__(self): self.values = [1.0, 2.0]
iteration = run['progress']['iteration']
torch.save({
    'meta': {'epoch': 0, 'iter': iteration, 'seed': run['seed'], 'cfg': '', 'dataset_meta': {'classes': ('a', 'b'), 'palette': [[1, 2, 3], [4, 5, 6]]}},
    'state_dict': state_dict,
    'message_hub': {'log_scalars': collections.OrderedDict(loss=HistoryBuffer()), 'runtime_info': collections.OrderedDict(iter=iteration, epoch=0), 'resumed_keys': {}},
    'optimizer': {'state': state, 'param_groups': groups},
    'param_schedulers': [{'_global_step': iteration, 'last_step': iteration, 'by_epoch': False}],
}, out)
";

const ITERATIONS: u32 = 8;

/// Every tensor's name in the order of the model's modules, which safetensors does not keep.
fn order(folder: &Path) -> PathBuf {
    let config = config::load(Path::new(harness::CONFIG), &[]).expect("the config");
    let model = Experiment::from_config(&config).expect("an experiment").model;
    let segmentor = model.init(&cpu().autodiff(), 0).expect("a model");
    let names: Vec<String> = segmentor.weights().into_iter().map(|it| it.name).collect();
    let path = folder.join("order.json");
    fs::write(&path, serde_json::to_string(&names).expect("JSON")).expect("writes");
    path
}

/// A training whose log lines show single values: means over several begin anew where the run
/// before was not ours.
fn train(work_dir: &Path) -> Command {
    let mut command = harness::train(work_dir, ITERATIONS);
    command.arg("log_processor.window_size=1");
    command
}

#[test]
fn a_training_of_mmengines_goes_on_with_the_losses_of_one_never_stopped() {
    let Some(python) = torch() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unbroken = folder.path().join("unbroken");
    ends_in(&mut train(&unbroken), 0);
    let expected: Steps =
        exact(&steps(&unbroken)).into_iter().filter(|(iteration, _)| *iteration > 4).collect();
    let order = order(folder.path());
    for kind in ["plain", "paramwise"] {
        let work_dir = folder.path().join(kind);
        fs::create_dir(&work_dir).expect("a folder");
        let theirs = work_dir.join("iter_4.pth");
        let mut make = Command::new(python);
        make.args(["-c", SCRIPT])
            .args([&unbroken.join("iter_4.safetensors"), &theirs])
            .arg(kind)
            .arg(&order);
        ends_in(&mut make, 0);
        // The work dir was somewhere else when mmengine wrote this.
        fs::write(work_dir.join("last_checkpoint"), "/another/machine/work/iter_4.pth")
            .expect("writes");
        let before = fs::read(&theirs).expect("the checkpoint");

        // An error after the start leaves the names as they were.
        let output = ends_in(
            train(&work_dir).args(["optim_wrapper.optimizer.momentum=0.0", "--resume"]),
            65,
        );
        assert!(
            text(&output.stderr).contains("SGD keeps no `momentum_buffer`"),
            "{}",
            text(&output.stderr)
        );
        let last =
            || fs::read_to_string(work_dir.join("last_checkpoint")).expect("last_checkpoint");
        assert_eq!(last(), "/another/machine/work/iter_4.pth");

        let told = text(&ends_in(train(&work_dir).arg("--resume"), 0).stdout);
        for words in ["iter_4.pth", "taken over", "iteration 4", "begin anew"] {
            assert!(told.contains(words), "{words} in {told}");
        }
        assert_eq!(exact(&steps(&work_dir)), expected, "{kind}");
        assert!(last().ends_with("iter_8.safetensors"), "{}", last());
        assert!(
            fs::read(&theirs).expect("the checkpoint") == before,
            "mmengine's file was changed"
        );

        // From here on the run is ours.
        let told =
            text(&ends_in(train(&work_dir).args(["train_cfg.max_iters=9", "--resume"]), 0).stdout);
        assert!(told.contains("iter_8.safetensors") && told.contains("iteration 8"), "{told}");
    }

    // Named on the command line, it is gone on from in any work dir.
    let named = folder.path().join("named");
    let load_from = format!("load_from={}", folder.path().join("plain/iter_4.pth").display());
    ends_in(train(&named).args(["resume=true", &load_from]), 0);
    assert_eq!(exact(&steps(&named)), expected);
}

#[test]
fn weights_alone_in_a_work_dir_of_mmengines_are_nothing_to_go_on_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, work_dir) = (folder.path().join("source"), folder.path().join("work"));
    ends_in(&mut harness::train(&source, 2), 0);
    fs::create_dir(&work_dir).expect("a folder");
    let theirs = work_dir.join("iter_2.pth");
    ends_in(
        harness::segslurm().arg("convert").arg(source.join("iter_2.safetensors")).arg(&theirs),
        0,
    );
    let output = ends_in(train(&work_dir).arg("--resume"), 65);
    let told = text(&output.stderr);
    assert!(told.contains("iter_2.pth") && told.contains("load_from"), "{told}");
    assert!(!work_dir.join("last_checkpoint").exists());
}
