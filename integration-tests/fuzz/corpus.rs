//! Real inputs to begin with: the configs of this repository, captured answers of Slurm, files that
//! this program writes. `SEGSLURM_FUZZ_CONFIGS` names a folder with more Python configs, such as
//! mmsegmentation's.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use segslurm::testing::checkpoint::{Checkpoint, DatasetMeta};
use segslurm::testing::config;

fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().map(|line| line.trim().as_bytes().to_vec()).collect()
}

/// Blocks with an empty line between them.
fn blocks(text: &str) -> Vec<Vec<u8>> {
    text.split("\n\n").map(|block| block.trim().as_bytes().to_vec()).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()) {
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

fn contents(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| fs::read(path).expect("a readable file")).collect()
}

/// A file for others to be based on.
fn base(folder: &Path) {
    let text = "crop_size: [512, 512]\nmodel: \
                {type: A, backbone: {depth: 50, out: [0, 1, 2, 3]}, heads: [{type: B, c: 1}, {type: C}]}\nsize: \
                {{crop_size}}\nname: run-{{model.backbone.depth}}\nlr: 0.01\n";
    fs::write(folder.join("base.yaml"), text).expect("writes");
}

pub(crate) fn yaml(folder: &Path) -> Vec<Vec<u8>> {
    base(folder);
    let mut seeds = contents(&files(&configs().join("_base_"), "yaml"));
    seeds.extend(blocks(
        "_base_: base.yaml\nmodel: {backbone: {depth: 18}}\n\n_base_: [base.yaml]\nmodel: \
         {_delete_: true, x: '{{_base_.lr}}'}\n_variables_: [lr]\n\na: &m {x: 1, y: [1, 2]}\nb:\n  \
         <<: *m\n  x: 2\nc: [*m, *m]\n\na: {x: {y: 5}}\nb: {{a.x}}\nc: {{b.y}}\nd: \
         v{{b.y}}-{{c}}\n\ntext: |\n  two\n  lines\nother: >-\n  folded\n\n[1, 1.0, 1e-4, true, \
         null, ~, None, 0x10, 1_000, .inf, .nan, !!python/tuple [1], 0o17, 1:30]\n\n'a': \
         \"\\u00e9\\n\"\n? key\n: value\n--- # end\n",
    ));
    seeds
}

pub(crate) fn python(folder: &Path) -> Vec<Vec<u8>> {
    base(folder);
    let mut seeds = blocks(
        "_base_ = ['base.yaml']\nmodel = dict(backbone=dict(depth=18), _delete_=True)\nnorm = \
         dict(type='BN')\nother = [norm] * 3\n\n_base_ = 'base.yaml'\nx = \
         _base_.model.backbone.out[-1]\ny = {{_base_.lr}}\nz = f'a{x}b{{}}'\n\nx = [[i, j] for i, \
         n in enumerate([1, 2]) for j in range(n)]\ny = \
         {f'k{i}': dict(v=i) for i in range(2)}\n\na = b = (1, 2.5, -3, 1e-4, 1_000, 0x10, .5, \
         2.)\na, b = 1, 2\nlr = 7 // 2 * 0.5 + 2 ** -1 % 3\nlr += 1\n\nmodel = dict(a=1, \
         **dict(b=2))\nmodel['a'] = {'c': [0, *[1, 2]]}\nmodel.update(extra=[1])\nt = r'\\d' \
         '''two\nlines'''\n\nx = sum([18, 36]), len([1]), int(2.9), float('3'), str(4), \
         list(range(4, 0, -2)), tuple(), -2 ** 2\n\np = [dict(t='A'), dict(t='B')]\nfor i, v in \
         enumerate(p):\n    if v['t'] == 'A' and i < 2:\n        v['x'] = 1\n    else:\n        \
         p.pop(0)\ndel p[0]\n\n_base_ = 'base.yaml'\npipe = _base_.model.heads\npipe[0].x = \
         3\n_base_.model.update(dict(backbone=dict(depth=18)))\ndel _base_.lr\n\nx = ['%-5s|%.2f' \
         % ('a', 1.5), '{:>{}}'.format(1, 4), f'{3.14159:.3g}', 'a,b'.split(','), '-'.join(['a', \
         'b'])]\ny = x[::-1][1:3]\n\nx = 'big' if 5 > 3 else round(2.675, 2)\ny = sorted({3, 1} | \
         {2}, reverse=True)\na, *b = x, 1, 2\nassert y\n\nimport os\nx = os.environ.get('A', \
         'b')\ndef f(a):\n    return lambda: a\nwith x as y:\n    pass\n\nx = '{{ fileDirname \
         }}/{{fileBasenameNoExtension}}'\ny = {{$NONE:3}}\nz = '{{$NONE:a}}' + \
         \"{{'$HOME:b'}}\"\n",
    );
    if let Some(more) = std::env::var_os("SEGSLURM_FUZZ_CONFIGS") {
        seeds.extend(contents(&files(Path::new(&more), "py")));
    }
    seeds
}

pub(crate) fn overrides(folder: &Path) -> Vec<Vec<u8>> {
    base(folder);
    lines(
        "model.backbone.depth=18\nmodel.heads.0.c=3\nlr=1e-4\ncrop_size=256,256\nmodel.backbone.out=[(1,2),[3,4]]\nname='a \
         b'\na.b.c=None\nmodel.heads=[{x},y]\nx=(a,b),(c,(d,e))\nmodel.backbone._delete_=true\nlr=1_000.5\nname={{lr}}",
    )
    .into_iter()
    .chain([b"lr=1\nmodel.heads.1.type=D\na.b=[1,2]\na.b.0=3".to_vec()])
    .collect()
}

/// Finished configs, as `segslurm config` prints them.
pub(crate) fn experiments(folder: &Path) -> Vec<Vec<u8>> {
    base(folder);
    let all = ["demo", "fcn", "pspnet"].map(|it| files(&configs().join(it), "yaml"));
    let chosen = all.concat().into_iter().step_by(3);
    chosen
        .map(|path| config::load(&path, &[]).expect("a config of ours").to_yaml().into_bytes())
        .collect()
}

pub(crate) fn hostlists(_: &Path) -> Vec<Vec<u8>> {
    lines(
        "n1\nn[1-3,7]\nn[001-3]\na[1-2]b[3-4]\ngpu-[001-002]-ib0\ndgx-a-[1-2],login\nn1 \
         n2,,n3\nn[09-10,011]\nn[0-65535]",
    )
}

pub(crate) fn counts(_: &Path) -> Vec<Vec<u8>> {
    lines("2(x3),1\n4\n1(x2),2,1(x100)")
}

pub(crate) fn times(_: &Path) -> Vec<Vec<u8>> {
    lines("30\n10:30\n1:00:00\n2-0\n1-12:30\n1-12:30:05\nUNLIMITED\ninfinite\n-1")
}

pub(crate) fn slurm_variables(_: &Path) -> Vec<Vec<u8>> {
    [
        "DAEMON=slurmstepd: [7.0]\nSLURMD_NODENAME=n1 SLURM_GPUS_ON_NODE=2 SLURM_GTIDS=0,1 \
         SLURM_JOB_ID=7 SLURM_JOB_NAME=pspnet SLURM_JOB_NODELIST=n[1-2] SLURM_LOCALID=1 \
         SLURM_NODEID=0 SLURM_NTASKS=4 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n[1-2] \
         SLURM_STEP_NUM_TASKS=4 SLURM_STEP_TASKS_PER_NODE=2(x2) SLURM_TASKS_PER_NODE=2(x2) \
         CUDA_VISIBLE_DEVICES=0,1 MASTER_PORT=29500",
        "DAEMON=slurmstepd: [8.batch]\nSLURMD_NODENAME=n1 SLURM_GTIDS=0 SLURM_JOB_ID=8 \
         SLURM_JOB_NAME=batch SLURM_JOB_NODELIST=n[1-2] SLURM_LOCALID=0 SLURM_NODEID=0 \
         SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_TASKS_PER_NODE=3,1",
        "SLURM_JOB_ID=9 SLURM_JOB_NAME=interactive SLURM_JOB_NODELIST=n[1-2] SLURM_NTASKS=4 \
         SLURM_TASKS_PER_NODE=3,1",
        "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=2 SLURM_LOCALID=0 SLURM_NODEID=1 \
         SLURM_STEP_NUM_TASKS=3 SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_TASKS_PER_NODE=2,1 \
         SLURM_GTIDS=2 SLURMD_NODENAME=n2 SLURM_DISTRIBUTION=cyclic \
         SLURM_STEP_RESV_PORTS=12000-12003,12010 SLURM_HET_SIZE=2 SLURM_JOB_ID_HET_GROUP_0=7 \
         SLURM_JOB_ID_HET_GROUP_1=8 SLURM_ARRAY_JOB_ID=6 SLURM_ARRAY_TASK_ID=1 \
         SLURM_RESTART_COUNT=1 SLURM_JOB_END_TIME=1800000000 SEGSLURM_PORTS=30000-30009",
        "SLURM_PROCID=0 SLURM_STEP_ID=1",
    ]
    .iter()
    .map(|text| text.replace(' ', "\n").replace("slurmstepd:\n", "slurmstepd: ").into_bytes())
    .collect()
}

pub(crate) fn launchers(folder: &Path) -> Vec<Vec<u8>> {
    let mut seeds = blocks(
        "RANK=3\nWORLD_SIZE=4\nLOCAL_RANK=1\nLOCAL_WORLD_SIZE=2\nMASTER_ADDR=n1\nMASTER_PORT=29501\nTORCHELASTIC_RUN_ID=x\nTORCHELASTIC_USE_AGENT_STORE=True\n\nRANK=0\nWORLD_SIZE=1\nFLAG=0\nMASTER_ADDR=n1\nSEGSLURM_LISTEN_FD=3\nSEGSLURM_PORT_FROM=nobody\n\nOMPI_COMM_WORLD_RANK=1\nOMPI_COMM_WORLD_SIZE=2\nOMPI_COMM_WORLD_LOCAL_RANK=1\nOMPI_COMM_WORLD_LOCAL_SIZE=2\n\nPMI_RANK=3\nPMI_SIZE=4\nMPI_LOCALRANKID=1\nMPI_LOCALNRANKS=2\nMASTER_ADDR=10.0.0.1\nPMIX_NAMESPACE=y",
    );
    seeds.extend(slurm_variables(folder));
    seeds
}

pub(crate) fn sites(_: &Path) -> Vec<Vec<u8>> {
    let mut seeds = blocks(
        "clusters: [big]\ngpu: {dialect: gpus-per-node, type: a100}\naccount: vision\ntime: \
         1-00:00:00\nsetup: [module load cuda]\nrequeue: false\nports: 20000-20999\ntemplate: \
         {train: mine.j2}\n\n# nothing\n\nexclusive: true\nslurm: {licenses: 'a:1'}\nprogram: \
         /opt/segslurm\n",
    );
    seeds.push(
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("slurm/sites/example.yaml"))
            .expect("the example"),
    );
    seeds
}

pub(crate) fn jobs(_: &Path) -> Vec<Vec<u8>> {
    blocks(
        "PARTITION=dev\nJOB_NAME=psp\nGPUS=16\nGPUS_PER_NODE=8\nCPUS_PER_TASK=5\nSRUN_ARGS=--comment \
         'a \
         b'\nSBATCH_TIMELIMIT=1-0\n\n--gpus=12\n--gpus-per-node=8\n--time=2:00:00\n--mem=64G\n--array=0-3%2\n--signal=USR1@60\n--nodelist=n[1-4]\n--exclude=n3\n--requeue\n\nPARTITION=-\n--gpus=0\n--ntasks=4\n--slurm=licenses=a:1\n--slurm=nice\n--sbatch-args=--mail-type=ALL\nLOG_DIR=/tmp/%a \
         b\nCONFIG=it's.yaml\n\n--gpus=3\n--gpus-per-node=2\n--comment=hi\n--dependency=afterok:12\n--container-image=a.sqsh\n--no-requeue\n--exclusive=user",
    )
}

pub(crate) fn answers(_: &Path) -> Vec<Vec<u8>> {
    blocks(
        "12\n\n12;big\n\n*** Welcome ***\nBudget: 1000 h left\n12\n\nSubmitted batch job 7 on \
         cluster big\nHave a nice \
         day\n\ndev|infinite|gpu:8\ndev|infinite|gpu:a100:4(S:0-1),nvme:2\nshort|10:00|(null)\n\nCANCELLED \
         by 1000\n\nRUNNING\n\nPD\n\nNodeName=n1 Arch=x86_64 Gres=gpu:8 NodeAddr=10.0.0.7 \
         NodeHostName=gpu7 Port=16576 Version=22.05.8 State=IDLE\n\nsbatch: error: invalid \
         partition specified: dve\nsbatch: error: Batch job submission failed: Invalid partition \
         name specified\n\nsbatch: Job 4 to start at 2026-11-25T11:08:32 using 1 processors on \
         nodes n1 in partition dev\n\nslurmstepd: [12.0]\n\nslurmstepd: \
         [12+1.batch]\n\nClusterName             = test\nCommunicationParameters = (null)",
    )
}

pub(crate) fn messages(_: &Path) -> Vec<Vec<u8>> {
    blocks(
        "rank 1\nat in all_reduce, its collective number 3, for 2 s\nbye\n\nwhere\nend rank 1 \
         (host n2) died\u{1}  more\nbye\n\nfail out of \
         memory\nhang\n\n{\"error\":null,\"arrivals\":[{\"host\":\"n1\",\"address\":\"127.0.0.1\",\"world\":2,\"gpu\":false},{\"host\":\"n2\",\"address\":\"::1\",\"world\":2,\"gpu\":true}],\"backend\":\"gloo\",\"lifeline\":4242}\n\n{\"error\":\"rank 1 did not arrive\",\"arrivals\":[],\"backend\":\"nccl\",\"lifeline\":0}\n\n{\"host\":\"n1\",\"address\":\"10.0.0.1\",\"world\":2,\"gpu\":true}",
    )
}

pub(crate) fn image_lists(_: &Path) -> Vec<Vec<u8>> {
    vec![
        b"2007_000032\n2007_000039\n".to_vec(),
        b"aachen/a_000000\r\n  b \n\n../c\n/d\n".to_vec(),
        "é 漢\n.hidden".into(),
    ]
}

fn example() -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    let weights = tch::Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]);
    checkpoint.model.insert("conv.weight".to_owned(), weights);
    checkpoint
        .model
        .insert("bn.num_batches_tracked".to_owned(), tch::Tensor::from_slice(&[300_i64]).squeeze());
    checkpoint.meta.dataset_meta = DatasetMeta {
        classes: vec!["wall".to_owned(), "sky".to_owned()],
        palette: vec![[1, 2, 3], [255, 0, 128]],
    };
    checkpoint
}

pub(crate) fn safetensors(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join("seed.safetensors");
    example().write(&path).expect("writes");
    let ours = fs::read(path).expect("the file");
    let foreign = safetensors_heads(folder)
        .into_iter()
        .map(|head| [&(head.len() as u64).to_le_bytes()[..], &head, &[1; 64]].concat());
    std::iter::once(ours).chain(foreign).collect()
}

pub(crate) fn safetensors_heads(_: &Path) -> Vec<Vec<u8>> {
    lines(
        r#"{"w":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}
        {"__metadata__":{"format":"pt"},"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"b":{"dtype":"BOOL","shape":[7,8],"data_offsets":[8,64]}}
        {"a":{"dtype":"F16","shape":[0,5],"data_offsets":[0,0]},"optimizer.m":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}"#,
    )
}

pub(crate) fn pths(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join("seed.pth");
    example().write_pth(&path).expect("writes");
    vec![
        fs::read(path).expect("the file"),
        archive(&pickles(folder)[0]),
        pickles(folder)[1].clone(),
    ]
}

pub(crate) fn pickles(folder: &Path) -> Vec<Vec<u8>> {
    let path = folder.join("seed.pth");
    example().write_pth(&path).expect("writes");
    let mut zip =
        zip::ZipArchive::new(fs::File::open(path).expect("the file")).expect("an archive");
    let mut ours = Vec::new();
    std::io::copy(&mut zip.by_name("archive/data.pkl").expect("a pickle"), &mut ours)
        .expect("reads");
    // {'meta': OrderedDict([('CLASSES', ('a', 'b'))]), 'model': {}}, and an object that nobody
    // knows, memoised.
    let objects = b"\x80\x02}q\x00(X\x04\x00\x00\x00metaccollections\nOrderedDict\nq\x01)Rq\x02(X\x07\x00\x00\x00CLASSES(X\x01\x00\x00\x00aX\x01\x00\x00\x00btuX\x0b\x00\x00\x00message_hubcmmengine.logging.message_hub\nMessageHub\n)\x81q\x03}q\x04X\x04\x00\x00\x00_logh\x02sbX\x05\x00\x00\x00model}u.";
    let framed = b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01\x8c\x01b\x94]\x94(G?\xf0\x00\x00\x00\x00\x00\x00Neu.";
    vec![ours, objects.to_vec(), framed.to_vec()]
}

/// What `torch.save` makes around a pickle.
pub(crate) fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [
        ("archive/data.pkl", pickle),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &[1; 64]),
        ("archive/data/1", &[2; 24]),
    ] {
        zip.start_file(name, stored)
            .and_then(|()| Ok(zip.write_all(content)?))
            .expect("an archive in memory");
    }
    zip.finish().expect("an archive in memory").into_inner()
}

pub(crate) fn pngs(_: &Path) -> Vec<Vec<u8>> {
    use png::BitDepth::{Eight, Four, One, Sixteen, Two};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let kinds = [
        (Grayscale, Eight),
        (Grayscale, One),
        (Grayscale, Two),
        (Grayscale, Four),
        (Grayscale, Sixteen),
        (Rgb, Eight),
        (Rgb, Sixteen),
        (Rgba, Eight),
        (GrayscaleAlpha, Eight),
        (Indexed, Eight),
        (Indexed, Two),
    ];
    kinds
        .into_iter()
        .map(|(colours, bits)| {
            let (width, height) = (13_usize, 9);
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
            encoder.set_color(colours);
            encoder.set_depth(bits);
            if colours == Indexed {
                encoder.set_palette((0..if bits == Two { 12 } else { 96 }).collect::<Vec<u8>>());
            }
            let stride = (width * colours.samples() * bits as usize).div_ceil(8);
            let pixels: Vec<u8> = (0..stride * height).map(|it| (it * 7 % 32) as u8).collect();
            encoder
                .write_header()
                .and_then(|mut it| it.write_image_data(&pixels))
                .expect("a PNG in memory");
            bytes
        })
        .collect()
}

/// Makes the checksums of a PNG's chunks right, as far as there are chunks.
pub(crate) fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(&[a, b, c, d]) = bytes.get(at..at + 4) {
        let end = at + 8 + u32::from_be_bytes([a, b, c, d]) as usize;
        if end + 4 > bytes.len() {
            return;
        }
        let sum = crc32fast::hash(&bytes[at + 4..end]).to_be_bytes();
        bytes[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

pub(crate) fn jpegs(_: &Path) -> Vec<Vec<u8>> {
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut seeds = Vec::new();
    for (colours, samples) in [
        (ColorType::Rgb, 3),
        (ColorType::Luma, 1),
        (ColorType::Cmyk, 4),
        (ColorType::CmykAsYcck, 4),
    ] {
        for (sampling, progressive) in [
            (SamplingFactor::F_2_2, false),
            (SamplingFactor::F_1_1, true),
            (SamplingFactor::F_4_2, false),
        ] {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 80);
            encoder.set_sampling_factor(sampling);
            encoder.set_progressive(progressive);
            if progressive {
                encoder.set_restart_interval(2);
            }
            encoder.add_app_segment(1, exif.to_vec()).expect("a short segment");
            let pixels: Vec<u8> =
                (0..19 * 21 * samples).map(|it| ((it * it / 7) ^ (it / 20)) as u8).collect();
            encoder.encode(&pixels, 19, 21, colours).expect("a small picture");
            seeds.push(bytes);
        }
    }
    seeds
}

/// Of every kind, so that parts of one come into another.
/// TIFF, BMP and WebP of every kind.
pub(crate) fn whole_pictures(_: &Path) -> Vec<Vec<u8>> {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../golden/decoding.json")).expect("golden pictures");
    let cases = cases.as_array().expect("cases").iter();
    let wanted = cases.filter(|it| {
        ["TIFF", "BMP", "WebP"]
            .iter()
            .any(|kind| it["name"].as_str().is_some_and(|name| name.starts_with(kind)))
    });
    let byte = |digits: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("a byte")
    };
    wanted
        .map(|it| it["file"].as_str().expect("a file").as_bytes().chunks(2).map(byte).collect())
        .collect()
}

pub(crate) fn pictures(folder: &Path) -> Vec<Vec<u8>> {
    [
        pngs(folder),
        jpegs(folder),
        vec![
            Vec::new(),
            b"GIF89a".to_vec(),
            b"\xff\xd8\xff".to_vec(),
            b"\x89PNG\r\n\x1a\n".to_vec(),
        ],
    ]
    .concat()
}
