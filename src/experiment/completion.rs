//! What mmengine's runner fills in before it builds anything: types that a section may leave out,
//! the preprocessor at the top, hooks among the default ones that are none of them.

use crate::config::{self, Config, Map, Node, Value};
use crate::exit::{Exit, Failure};

/// Sections whose `type` may be left out, and what it is then.
const TYPES: [(&str, &str); 5] = [
    ("optim_wrapper", "OptimWrapper"),
    ("val_cfg", "ValLoop"),
    ("test_cfg", "TestLoop"),
    ("visualizer", "SegLocalVisualizer"),
    ("model_wrapper_cfg", "MMDistributedDataParallel"),
];

const DEFAULT_HOOKS: [&str; 7] = [
    "runtime_info",
    "timer",
    "sampler_seed",
    "logger",
    "param_scheduler",
    "checkpoint",
    "visualization",
];

/// The config as the runner would see it.
#[expect(clippy::disallowed_methods, reason = "configs name variables of the environment")]
pub(super) fn complete(config: &Config) -> Result<Config, Failure> {
    let mut config = config.clone();
    let variable = |name: &str| std::env::var_os(name).map(|it| it.to_string_lossy().into_owned());
    config::expand(&mut config.root, &variable)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    if let Value::Map(root) = &mut config.root.value {
        types(root);
        train_loop(root);
        preprocessor(root);
        hooks(root);
        evaluators(root);
    }
    Ok(config)
}

fn below<'a>(root: &'a mut Map, key: &str) -> Option<(&'a mut Map, crate::config::Origin)> {
    let node = root.get_mut(key)?;
    let origin = node.origin.clone();
    if let Value::Map(map) = &mut node.value { Some((map, origin)) } else { None }
}

fn types(root: &mut Map) {
    for (section, name) in TYPES {
        if let Some((map, origin)) = below(root, section)
            && !map.contains_key("type")
        {
            map.insert("type".to_owned(), Node::new(Value::String(name.to_owned()), origin));
        }
    }
}

/// Without a type `by_epoch` chooses it.
fn train_loop(root: &mut Map) {
    let Some((map, origin)) = below(root, "train_cfg").filter(|(map, _)| !map.contains_key("type"))
    else {
        return;
    };
    let by_epoch = match map.get("by_epoch").map(|it| &it.value) {
        Some(Value::Bool(by_epoch)) => *by_epoch,
        _ if map.contains_key("max_iters") => false,
        _ if map.contains_key("max_epochs") => true,
        _ => return,
    };
    map.shift_remove("by_epoch");
    let name = if by_epoch { "EpochBasedTrainLoop" } else { "IterBasedTrainLoop" };
    map.insert("type".to_owned(), Node::new(Value::String(name.to_owned()), origin));
}

/// A model without a preprocessor takes the one at the top of the config.
fn preprocessor(root: &mut Map) {
    const KEY: &str = "data_preprocessor";
    let Some(top) =
        root.get(KEY).filter(|it| it.as_map().is_some_and(|it| it.contains_key("type"))).cloned()
    else {
        return;
    };
    if let Some((model, _)) = below(root, "model")
        && model.get(KEY).is_none_or(|it| it.value == Value::Null)
    {
        model.insert(KEY.to_owned(), top);
    }
}

/// mmengine's `Evaluator` is a list of its metrics.
fn evaluators(root: &mut Map) {
    for key in ["val_evaluator", "test_evaluator"] {
        let Some((map, _)) = below(root, key) else { continue };
        let plain = map
            .get("type")
            .is_none_or(|it| matches!(it.as_str(), Some("Evaluator" | "mmengine.Evaluator")));
        let alone = map.keys().all(|it| it == "type" || it == "metrics");
        if let Some(metrics) = map.get("metrics").filter(|_| plain && alone).cloned() {
            root.insert(key.to_owned(), metrics);
        }
    }
}

/// A hook under a name of its own is one beside the others.
fn hooks(root: &mut Map) {
    let mut own = Vec::new();
    if let Some((hooks, _)) = below(root, "default_hooks") {
        let named: Vec<String> = hooks
            .iter()
            .filter(|(key, hook)| {
                let hook = hook.value == Value::Null
                    || hook.as_map().is_some_and(|it| it.contains_key("type"));
                hook && !DEFAULT_HOOKS.contains(&key.as_str())
            })
            .map(|(key, _)| key.clone())
            .collect();
        own.extend(
            named
                .iter()
                .filter_map(|it| hooks.shift_remove(it))
                .filter(|it| it.value != Value::Null),
        );
    }
    let Some(first) = own.first() else { return };
    let origin = first.origin.clone();
    let custom =
        root.entry("custom_hooks".to_owned()).or_insert_with(|| Node::new(Value::Null, origin));
    match &mut custom.value {
        Value::List(hooks) => hooks.extend(own),
        value => {
            let before = std::mem::replace(value, Value::Null);
            let before = (before != Value::Null).then(|| Node::new(before, custom.origin.clone()));
            custom.value = Value::List(before.into_iter().chain(own).collect());
        }
    }
}
