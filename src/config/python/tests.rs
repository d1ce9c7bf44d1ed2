//! What a Python config says, as Python itself says it: the values here were computed by Python
//! 3.11 and mmengine 0.10.

use proptest::prelude::*;

use super::*;
use crate::config;

const BASES: &str = "\
crop_size: [512, 1024]
norm: {type: BN}
model: {depth: 50, strides: [1, 2], heads: [{type: A, w: 0.5}], aux: {a: 1}}
pipeline: [{type: Load}, {type: Resize, scale: [4, 2]}, {type: Pack}]
";

/// The file's names, and the bases as it leaves them.
fn read_both(text: &str) -> Result<(Node, Node), String> {
    let program = Program::parse(text, &"a.py".into()).map_err(|it| it.to_string())?;
    let mut bases = config::yaml::parse(BASES, &"b.yaml".into()).expect("parses");
    let mut refused = Vec::new();
    let own = program.evaluate(&mut bases, &mut Uses::new(), &mut refused);
    if refused.is_empty() { Ok((own, bases)) } else { Err(ConfigError::all(refused).to_string()) }
}

fn read(text: &str) -> Result<Node, String> {
    read_both(text).map(|(own, _)| own)
}

fn json(node: &Node) -> String {
    serde_json::to_string(node).expect("has a JSON form")
}

/// What Python gives for the expression, as JSON.
fn value(text: &str) -> Result<String, String> {
    read(&format!("x = {text}\n")).map(|it| json(it.get("x").expect("x is set")))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn expressions_have_the_values_that_python_gives() {
    let cases = [
        ("(1, 2.5, -3, 1e-4, 1_000, 0x10, .5, 2.)", "[1,2.5,-3,0.0001,1000,16,0.5,2.0]"),
        ("(5)", "5"),
        ("(5,)", "[5]"),
        ("()", "[]"),
        ("1, 2", "[1,2]"),
        (
            "dict(a=1, b=dict(type='X', c=None, d=True))",
            r#"{"a":1,"b":{"type":"X","c":null,"d":true}}"#,
        ),
        ("dict({'a': 1}, b=2, **{'c': 3})", r#"{"a":1,"b":2,"c":3}"#),
        ("{'a.b': 1, 2: [3], **dict(c=4)}", r#"{"a.b":1,"2":[3],"c":4}"#),
        ("[0, *[1, 2], 3]", "[0,1,2,3]"),
        ("'a' 'b' \"c\"", "\"abc\""),
        (r"'it\'s' r'\d' '\n'", r#""it's\\d\n""#),
        ("'''two\nlines'''", r#""two\nlines""#),
        ("f'stage{1 + 1}.{{x}}.{_base_.model.depth}'", "\"stage2.{x}.50\""),
        ("1 + 2 * 3 - 4", "3"),
        ("1024 // 8 * 0.5", "64.0"),
        ("[1] * 3 + [2] + [] * 10 ** 12", "[1,1,1,2]"),
        ("[[i, j] for i, n in enumerate([1, 2]) for j in range(n)]", "[[0,0],[1,0],[1,1]]"),
        ("{f'k{i}': dict(v=i) for i in range(2)}", r#"{"k0":{"v":0},"k1":{"v":1}}"#),
        ("list(range(4, 0, -2))", "[4,2]"),
        ("_base_.model.heads[0]['type']", "\"A\""),
        ("{{_base_.model.depth}}", "50"),
        ("[\n  1,  # one\n  2,\n]", "[1,2]"),
        (
            "int('4'), int(' -12 '), int('0x1f', 16), int('101', 2), int('1_000'), int(-2.9), \
             int(True), int()",
            "[4,-12,31,5,1000,-2,1,0]",
        ),
        ("float('1e-3'), float(' 2 '), float(3), float('1_0.5')", "[0.001,2.0,3.0,10.5]"),
        (
            "str(1.0), str(1e-5), str(1e16), str(0.0001), str(123456789012345680.0), str(True), \
             str(-0.0)",
            r#"["1.0","1e-05","1e+16","0.0001","1.2345678901234568e+17","True","-0.0"]"#,
        ),
        (
            "bool([]), bool('a'), bool(0.0), bool({'a': 1}), not (), not 1",
            "[false,true,false,true,true,false]",
        ),
        (
            "round(0.5), round(1.5), round(2.5), round(-0.5), round(2.675, 2), round(0.125, 2), \
             round(2.5, None)",
            "[0,2,2,0,2.67,0.12,2]",
        ),
        (
            "round(1250, -2), round(1350, -2), round(-1250, -2), round(5, 2), round(1234.5, -2)",
            "[1200,1400,-1200,5,1200.0]",
        ),
        (
            "max(1, 5, 3), min([4, 2.5]), max('ab', 'b'), max([], default=7), max([3, 12], \
             key=str), abs(-3), abs(-2.5)",
            r#"[5,2.5,"b",7,3,3,2.5]"#,
        ),
        (
            "sum([1, 2.5]), sum([[1], [2]], []), sum(i * i for i in range(4)), all([1, 0]), \
             any([0, 'x'])",
            "[3.5,[1,2],14,false,true]",
        ),
        (
            "sorted([3, 1, 2]), sorted('bca', reverse=True), sorted([(2, 'a'), (1, 'b')]), \
             sorted(['bbb', 'a'], key=len)",
            r#"[[1,2,3],["c","b","a"],[[1,"b"],[2,"a"]],["a","bbb"]]"#,
        ),
        (
            "list(reversed([1, 2])), list(zip([1, 2], 'ab')), list(map(int, ['1', '2'])), \
             list(enumerate('ab', 1))",
            r#"[[2,1],[[1,"a"],[2,"b"]],[1,2],[[1,"a"],[2,"b"]]]"#,
        ),
        (
            "divmod(-7, 2), pow(2, 5), len('é'), len({1, 1}), 2 in {1, 2}, sorted({3, 1} | {2})",
            "[[-4,1],32,1,1,true,[1,2,3]]",
        ),
        (
            "'big' if 5 > 3 else 'small', 0 and 1, None or [] or 'last', 1 if True else missing",
            r#"["big",0,"last",1]"#,
        ),
        (
            "1 < 2 < 3, 1 < 3 < 2, [1, 2] < [1, 3], [1] == (1,), 1 == 1.0 == True, None is None, \
             'b' in 'abc', 3 not in (1, 2)",
            "[true,false,true,false,true,true,true,true]",
        ),
        (
            "7 // 2, -7 // 2, 7 % -3, -7.5 // 2, -7.5 % 2, 2 ** 10, 2 ** -1, -2 ** 2, True + 1, 5 \
             & 3, 5 ^ 3, ~5, 1 << 4, 0.1 + 0.2",
            "[3,-4,-2,-4.0,0.5,1024,0.5,-4,2,1,6,-6,16,0.30000000000000004]",
        ),
        (
            "[0, 1, 2, 3, 4, 5][1:3], [0, 1, 2, 3][::-1], [0, 1, 2, 3][-2:], [0, 1, 2, 3, 4, \
             5][5:1:-2], 'hello'[1:4], (1, 2, 3)[:-1], 'abc'[-1]",
            r#"[[1,2],[3,2,1,0],[2,3],[5,3],"ell",[1,2],"c"]"#,
        ),
        (
            "'a,b'.split(','), ' a  b '.split(), 'a-b-c'.split('-', 1), 'a-b-c'.rsplit('-', 1), ' \
             a b  c '.rsplit(None, 1), 'a b  '.split(None, 1)",
            r#"[["a","b"],["a","b"],["a","b-c"],["a-b","c"],[" a b","c"],["a","b  "]]"#,
        ),
        (
            "'-'.join(['a', 'b']), 'aXbX'.replace('X', 'y', 1), 'ab'.replace('', '.'), \
             'xxaxx'.strip('x'), ' a '.rstrip(), 'hello world'.title()",
            r#"["a-b","aybX",".a.b.","a"," a","Hello World"]"#,
        ),
        (
            "'abc'.startswith(('x', 'ab')), 'abc'.endswith('bc'), 'abcb'.rfind('b'), \
             'abc'.find('z'), 'abab'.count('ab'), '-5'.zfill(4), 'ab'.center(5, '*')",
            r#"[true,true,3,-1,2,"-005","**ab*"]"#,
        ),
        (
            r"'a.b.c'.rpartition('.'), 'abc'.removesuffix('bc'), 'Ab'.upper(), 'Ab'.lower(), 'a\nb'.splitlines(), '12'.isdigit()",
            r#"[["a.b",".","c"],"a","AB","ab",["a","b"],true]"#,
        ),
        (
            "'{}-{}'.format(1, 'a'), '{0}{1}{0}'.format('a', 'b'), '{x:.2f}'.format(x=3.14159), \
             '{a[k]}'.format(a=dict(k=3)), '{:{}}|'.format('a', 4)",
            r#"["1-a","aba","3.14","3","a   |"]"#,
        ),
        (
            "'{:>5}|{:<5}|{:^5}'.format(1, 2, 3), '{:05d}'.format(42), '{:,}'.format(1234567), \
             '{:#x} {:b}'.format(255, 5), '{:.1%}'.format(0.256), '{!r}'.format('a')",
            r#"["    1|2    |  3  ","00042","1,234,567","0xff 101","25.6%","'a'"]"#,
        ),
        (
            "'%d' % 3, '%s and %s' % ('a', 1), '%.2f' % 3.14159, '%05d' % 42, '%-5s|' % 'a', \
             '%(a)s' % dict(a=1), '%d%%' % 5, '%x' % 255, '%g' % 0.0001",
            r#"["3","a and 1","3.14","00042","a    |","1","5%","ff","0.0001"]"#,
        ),
        (
            r#"f'{3:03d}', f'{3 / 7:.3f}', f'{"n"!r}', f'{1 + 2=}', f'{[1, "a"]}', f'{(1,)}', f'{dict(k=1.5)}', f'{1e-5} {1e16}', f'{7:{4}}|', f'{1234:08,}'"#,
            r#"["003","0.429","'n'","1 + 2=3","[1, 'a']","(1,)","{'k': 1.5}","1e-05 1e+16","   7|","0,001,234"]"#,
        ),
        (
            "f'{1234567.0:.3g}', f'{0.00012345:.3g}', f'{100.0:.3}', f'{12345.6789:.2e}', \
             f'{-7:05d}', f'{10:+.1f}', f'{True:d}', f'{1e10:g}'",
            r#"["1.23e+06","0.000123","1e+02","1.23e+04","-0007","+10.0","1","1e+10"]"#,
        ),
        (
            r"'\x41\u00e9\101\N{DEGREE SIGN}', r'\d', u'u', '\q', '\
'",
            r#"["AéA°","\\d","u","\\q",""]"#,
        ),
        (
            "[i for i in range(10) if i % 2 if i > 3], \
             {k: v for k, v in dict(a=1, b=2).items() if v > 1}, [a + b for a, (b, c) in [(1, (2, \
             3))]]",
            r#"[[5,7,9],{"b":2},[3]]"#,
        ),
        (
            "[*range(3), *'ab'], {**dict(a=1), 'b': 2}, dict([('a', 1), ['b', 2]]), \
             dict.fromkeys(['a', 'b'], 0), dict(a=1) | dict(a=2), {1: 'a'}[True]",
            r#"[[0,1,2,"a","b"],{"a":1,"b":2},{"a":1,"b":2},{"a":0,"b":0},{"a":2},"a"]"#,
        ),
        (
            "dict(a=1).get('a'), dict(a=1).get('b'), dict(a=1).get('b', 2), \
             list(dict(a=1).items()), [1, 2, 2].count(2), [1, 2].index(2), (1, 2).index(2)",
            r#"[1,null,2,[["a",1]],2,1,1]"#,
        ),
        ("0b101 + 0o17 + 0xff, 10_000, .5e1, 1e400 > 5", "[275,10000,5.0,true]"),
    ];
    for (text, expected) in cases {
        assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn statements_do_what_they_do_in_python() {
    let cases = [
        // Whoever took a list or a dict shares it.
        (
            "a = dict()\nb = a\na['x'] = 1\nc = [a]\na['y'] = 2",
            r#"{"a":{"x":1,"y":2},"b":{"x":1,"y":2},"c":[{"x":1,"y":2}]}"#,
        ),
        (
            "a = [1]\nb = a + [2]\nb.append(3)\nc = a\nc += (9,)",
            r#"{"a":[1,9],"b":[1,2,3],"c":[1,9]}"#,
        ),
        ("a = [[0] * 2] * 2\na[0][0] = 1", r#"{"a":[[1,0],[1,0]]}"#),
        (
            "a = dict(l=[1])\nb = a.copy()\nb['k'] = 1\na['l'].append(2)",
            r#"{"a":{"l":[1,2]},"b":{"l":[1,2],"k":1}}"#,
        ),
        (
            "d = dict(a=1)\nd.update({'b': 2}, c=3)\np = d.pop('a')\nd.setdefault('n', \
             []).append(4)",
            r#"{"d":{"b":2,"c":3,"n":[4]},"p":1}"#,
        ),
        (
            "l = [3, 1]\nl.extend((5, 6))\nl.insert(0, 'x')\nl.insert(-1, 'y')\nl.remove(1)\np = \
             l.pop()\nl.reverse()",
            r#"{"l":["y",5,3,"x"],"p":6}"#,
        ),
        (
            "l = [3, 1, 2]\nl.sort(reverse=True)\ndel l[0]\nm = [1, 2, 3, 4, 5]\ndel m[::2]",
            r#"{"l":[2,1],"m":[2,4]}"#,
        ),
        (
            "a = [1, 2, 3, 4]\na[1:3] = ['x']\nb = [1, 2]\nb[1:1] = [5]\nc = [1, 2, 3, 4]\nc[::2] \
             = [9, 8]\nd = [1]\nd[5:] = [4]",
            r#"{"a":[1,"x",4],"b":[1,5,2],"c":[9,2,8,4],"d":[1,4]}"#,
        ),
        (
            "a, b = 1, 2\na, b = b, a\nc, *d = [1, 2, 3]\n*e, g = (1, 2)\n(h, i), j = (1, 2), 3\nk \
             = l = []\nk.append(1)",
            r#"{"a":2,"b":1,"c":1,"d":[2,3],"e":[1],"g":2,"h":1,"i":2,"j":3,"k":[1],"l":[1]}"#,
        ),
        (
            "x = 3\nx *= 2.5\nx -= 1\ny = 7\ny //= 2\ny **= 2\ns = 'a'\ns += 'b'\nt = (1,)\nt += \
             (2,)\nd = dict(a=1)\nd |= dict(b=2)\nd['a'] += 5",
            r#"{"x":6.5,"y":9,"s":"ab","t":[1,2],"d":{"a":6,"b":2}}"#,
        ),
        (
            "n = 4\nif n > 5:\n    lr = 1\nelif n > 3:\n    lr = 2\nelse:\n    lr = 3\nfor i in \
             range(3):\n    if i == 1:\n        continue\n    lr = lr * 2\nelse:\n    done = True",
            r#"{"n":4,"lr":8,"i":2,"done":true}"#,
        ),
        (
            "p = [dict(type='A'), dict(type='B')]\nfor t in p:\n    if t['type'] == 'B':\n        \
             t['x'] = 1\nfor t in p:\n    if t['type'] == 'A':\n        p.remove(t)\ndel t",
            r#"{"p":[{"type":"B","x":1}]}"#,
        ),
        (
            "x = 5\ny = x\ndel x\n__hidden = 3\n_kept = 4\nz: int = 6\nassert y == 5, 'five'\ns = \
             {1, 2}\nm = max(s)\npass",
            r#"{"y":5,"_kept":4,"z":6,"m":2}"#,
        ),
        ("a = 1; b = 2\nf = max\nx = f(a, b)\ndel f\nmax = 3", r#"{"a":1,"b":2,"x":2,"max":3}"#),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).map(|it| json(&it)).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn the_bases_can_be_read_and_changed() {
    let text = "\
w, h = _base_.crop_size
same = _base_.crop_size == (512, 1024)
size = '%dx%d' % _base_.crop_size
more = _base_.pipeline + [dict(type='More')]
pipeline = _base_.pipeline
pipeline[1].scale = (1, 2)
pipeline.insert(1, dict(type='New'))
_base_.model.depth = 101
gone = _base_.model.pop('aux'), _base_.model.pop('aux'), _base_.get('nothing', 3)
d = dict(a=1)
_base_.model.extra = d
d['a'] = 2
_base_.model.extra.b = 5
_base_.model.update(dict(heads=[], extra=dict(c=6)))
copy = dict(_base_.norm, type='GN')
del _base_.crop_size
";
    let (own, bases) = read_both(text).expect("is read");
    let pipeline =
        r#"[{"type":"Load"},{"type":"New"},{"type":"Resize","scale":[1,2]},{"type":"Pack"}]"#;
    let more =
        r#"[{"type":"Load"},{"type":"Resize","scale":[1,2]},{"type":"Pack"},{"type":"More"}]"#;
    assert_eq!(
        json(&own),
        format!(
            r#"{{"w":512,"h":1024,"same":true,"size":"512x1024","more":{more},"pipeline":{pipeline},"gone":[{{"a":1}},null,3],"d":{{"a":2}},"copy":{{"type":"GN"}}}}"#
        )
    );
    assert_eq!(
        json(&bases),
        format!(
            r#"{{"norm":{{"type":"BN"}},"model":{{"depth":101,"strides":[1,2],"heads":[],"extra":{{"a":1,"b":5,"c":6}}}},"pipeline":{pipeline}}}"#
        )
    );
    assert_eq!(bases.get("model.depth").expect("depth").origin.to_string(), "a.py:8");
    assert_eq!(bases.get("norm.type").expect("type").origin.to_string(), "b.yaml:2");
}

#[test]
fn names_take_values_and_know_their_lines() {
    let text = "\
'''What this is.'''
norm = dict(
    type='BN')
model = dict(
    norm=norm,
    depth=50)
model['depth'] = 18
model.update(extra=[1])
lr = rate = 0.1
lr += 1
";
    let root = read(text).expect("parses");
    let expected = r#"{"norm":{"type":"BN"},"model":{"norm":{"type":"BN"},"depth":18,"extra":[1]},"lr":1.1,"rate":0.1}"#;
    assert_eq!(json(&root), expected);
    for (path, line) in
        [("norm", 2), ("norm.type", 3), ("model.norm", 2), ("model.depth", 7), ("model.extra", 8)]
    {
        assert_eq!(
            root.get(path).expect(path).origin.to_string(),
            format!("a.py:{line}"),
            "{path}"
        );
    }
}

#[test]
fn a_base_is_named_by_what_needs_no_names() {
    let bases = |text: &str| {
        let program = Program::parse(text, &"a.py".into()).expect("parses");
        program.bases().map(|it| it.map(|it| json(&it))).map_err(|it| it.to_string())
    };
    for text in [
        "_base_ = ['../a.py', './b.py']",
        "_base_ = ['../' + 'a.py'] + ['./b.py']",
        "_base_ = [f'{n}.py' for n in ('../a', './b')]",
    ] {
        assert_eq!(bases(text), Ok(Some(r#"["../a.py","./b.py"]"#.into())), "{text}");
    }
    assert_eq!(bases("x = 1"), Ok(None));
    let error = bases("n = 'a'\n_base_ = n + '.py'").expect_err("a name");
    assert_eq!(error, "a.py:2: `_base_` is read before the rest of the file, so it cannot use `n`");
    for text in [
        "_base_ = 'a.py'\n_base_ = 'b.py'",
        "if 1:\n\n    _base_ = 'b.py'",
        "_base_ = 'a.py'\n_base_ += ['b.py']",
    ] {
        assert!(read(text).expect_err(text).contains("`_base_` is set once"), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let wrong = [
        "x = 1\n  y = 2",
        "x = open('/etc/passwd')",
        "x = ''.__class__",
        "crop_size = (1, 2)\nx = crop_sise",
        "x = dict(a=1,\n  b=2\ny = 2",
        "x = dict(a=1 b=2)",
        "x = 'open",
        "x = [1, 2))",
        "x = 1 +\ny = 2",
        "if x = 1:\n    pass",
        "x = $A",
        "x = [i for i in range(10 ** 9)]",
        "x = 'a' + 1",
        "x = 1 // 0",
        "x = 9223372036854775807 + 1",
        "x = 99999999999999999999",
        "x = 9 ** 99",
        "x = _base_.model.dept",
        "x = dict(a=1).a",
        "x = dict(a=1)['b']",
        "x = [1, 2][5]",
        "x = (1, 2) + [3]",
        "x = (1, 2)\nx[0] = 3",
        "x = [1, 'a']\nx.sort()",
        "x = 'a'.uper()",
        "x = int('4.5')",
        "x = '%d %d' % (1, 2, 3)",
        "x = '{:d}'.format('a')",
        "x = '{:999999999}'.format('a')",
        "x = dict(a=1, **dict(a=2))",
        "a, b = 1, 2, 3",
        "x = [{1, 2}]",
        "x = zip([1], [2])",
        "x = int",
        "x = dict({(1, 2): 3})",
        "lr == 0.1",
        "lr: 0.1",
        "x = 5\ndel x\ny = x",
        "assert 1 > 2, 'one is less'",
        "x = '\u{e000}a\u{e001}'",
        "x = {{crop_size}}",
    ];
    let errors: Vec<String> = wrong.iter().map(|it| read(it).expect_err(it)).collect();
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn what_would_have_to_be_run_is_told_all_at_once() {
    let text = "\
import os
import numpy as np
from math import sqrt
root = os.environ.get('DATA', '/data')
home = os.environ['HOME']
path = os.path.join(root, 'x')
def f(a):
    return lambda: a
x = f(3)
class A:
    pass
g = lambda v: v
while True:
    pass
try:
    h = 1
except Exception:
    h = 2
with open('x') as file:
    text = file.read()
print('hello')
v = __file__
k = (n := 3)
b = b'abc'
s = sqrt(2)
async def q(): pass
if x:
    raise ValueError
crop_sise = 1
y = crop_size
";
    insta::assert_snapshot!(read(text).expect_err("is refused"));
    let new_style = "from mmengine.config import read_base\n\nwith read_base():\n    from \
                     .._base_.x import *\nimport os\n";
    insta::assert_snapshot!(read(new_style).expect_err("is refused"));
    for text in [
        "x = 1\nfrom .a import b",
        "x = 1\nfrom mmseg.models import PSPHead",
        "x = 1\nwith read_base():\n    pass",
    ] {
        assert!(
            read(text)
                .expect_err(text)
                .starts_with("a.py:2: this is one of mmengine's new-style configs"),
            "{text}"
        );
    }
}

#[test]
fn chains_of_any_length_are_refused_with_their_line() {
    for link in [".b", "[0]", "()", "+1", "*1", "-1", " if a else a", " for a in b", " < 1", "**1"]
    {
        for length in [300, 50_000] {
            let error = read(&format!("\nx = [a{}]", link.repeat(length)));
            assert!(
                error.as_ref().is_err_and(|it| it.starts_with("a.py:2: ")),
                "{link} {length}: {error:?}"
            );
        }
    }
    let around = [
        ("(", ")"),
        ("[", "]"),
        ("{1: ", "}"),
        ("max(", ")"),
        ("f'{", "}'"),
        ("2 ** ", ""),
        ("not ", ""),
        ("-", ""),
        ("lambda a, b: ", ""),
    ];
    for (open, close) in around.into_iter().chain([
        ("[a for a in ", "]"),
        ("f'{\'", "\'}'"),
        ("f\"{'", ""),
        ("{", "}"),
        ("1 if 1 else ", ""),
    ]) {
        // Round brackets alone are no level.
        for depth in [300, 5000, 50_000].into_iter().skip(usize::from(open == "(")) {
            let text = format!("\nx = {}1{}", open.repeat(depth), close.repeat(depth));
            assert!(read(&text).is_err_and(|it| it.starts_with("a.py:2: ")), "{open} {depth}");
        }
    }
    let blocks: String =
        (0..5000).map(|depth| format!("{}if 1:\n", " ".repeat(depth % 300))).collect();
    assert!(read(&blocks).is_err());
    assert!(read(&"class A: ".repeat(50_000)).is_err());
}

#[test]
fn what_is_allowed_to_nest_is_followed_on_a_small_stack() {
    for (open, close) in [
        ("[", "]"),
        ("max(1, ", ")"),
        ("[a for a in ", "]"),
        ("{1: ", "}[1]"),
        ("f'{", "}'"),
        ("1 if 1 else ", ""),
        ("-", ""),
    ] {
        let deepest = (1..200).rev().find(|depth| {
            let inner = if open.starts_with("[a") { "[1]" } else { "1" };
            read(&format!("x = len(str({}{inner}{}))", open.repeat(*depth), close.repeat(*depth)))
                .is_ok()
        });
        assert!(deepest.is_some_and(|it| it >= 60), "{open} {deepest:?}");
    }
    assert!(read(&format!("x = 1{}", "+1".repeat(150))).is_ok());
    let blocks: String = (0..90).map(|depth| format!("{}if 1:\n", " ".repeat(depth))).collect();
    assert!(read(&format!("{blocks}{}x = 1", " ".repeat(90))).is_ok());
}

#[test]
fn what_grows_with_every_line_is_refused_before_memory_ends() {
    let doubled = |first: &str, next: &str| {
        format!("a0 = {first}\n")
            + &(0..60)
                .map(|at| format!("a{} = {}\n", at + 1, next.replace("NAME", &format!("a{at}"))))
                .collect::<String>()
    };
    for text in [
        doubled("[1]", "[NAME, NAME]"),
        doubled("'text'", "NAME + NAME"),
        doubled("[1]", "NAME + NAME"),
        doubled("'x'", "f'{NAME}{NAME}'"),
        doubled("[1]", "NAME * 99"),
        doubled("'x'", "NAME.replace('x', 'xx')"),
        doubled("'x'", "'{}{}'.format(NAME, NAME)"),
        doubled("'x'", "'%s%s' % (NAME, NAME)"),
        doubled("(1,)", "(NAME, NAME)") + "same = a60 == a59\n",
        "a = [1]\nfor v in a:\n    a.append(1)".into(),
        "a = 'x' * 10 ** 12".into(),
        "a = [1] * 10 ** 12".into(),
        "a = [1]\na.append(a)\nb = a == [a]".into(),
    ] {
        let error = read(&text).expect_err(&text);
        assert!(
            error.contains("this computes too much for a config")
                || error.contains("nest more than 100 levels"),
            "{error}"
        );
        assert!(error.len() < 20_000, "{}", error.len());
    }
    let nested = "a0 = [1]\n".to_owned()
        + &(0..5000).map(|at| format!("a{} = [a{at}]\n", at + 1)).collect::<String>();
    let error = read(&nested).expect_err("deep");
    assert!(
        error.starts_with("a.py:101: a100: values nest more than 100 levels deep\n"),
        "{error}"
    );
    assert!(error.ends_with(" more faults of this file)") && error.len() < 3000, "{error}");
    let error = read(&"x = missing\n".repeat(100)).expect_err("is wrong");
    assert_eq!(
        error,
        "a.py:1: `missing` is not set above (also in line 2, 3, 4, 5, 6, 7, 8, 9 and 91 more)"
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}", python in "[a-c0-9=(){}\\[\\]:,.'\"*+/%<f \
                                                                 \n#-]{0,50}") {
        let _ = read(&text);
        let _ = read(&python);
        let _ = read(&format!("x = {python}"));
    }

    #[test]
    fn numbers_are_written_so_that_they_are_read_again(value in any::<f64>()) {
        let text = format::float(value);
        let digits = text.replace("inf", "1e999");
        prop_assert_eq!(digits.parse::<f64>().map(f64::to_bits).ok(), Some(value.to_bits()).filter(|_| !value.is_nan()).or(text.parse::<f64>().map(f64::to_bits).ok()));
    }
}
