"""Tables as people have them: other names of columns, semicolons, paths from Windows, names without endings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlfeat.errors import DataError
from tlfeat.images.load import load_images


def table(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


# --- columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["filename", "file_name", "File", "image", "image_path", "FilePath"])
@pytest.mark.parametrize("label", ["class", "Category", "target"])
def test_usual_names_of_columns_are_found_and_said(tmp_path: Path, path: str, label: str) -> None:
    images = load_images(table(tmp_path / "t.csv", f"n,{label},{path}\n1,cat,a.png\n2,dog,b.png\n"))
    assert (images.paths, images.labels) == (["a.png", "b.png"], ["cat", "dog"])
    assert images.notes == [
        f"t.csv: paths from '{path}', labels from '{label}' (others: --path-column, --label-column)"
    ]


def test_path_and_label_go_before_other_names(tmp_path: Path) -> None:
    images = load_images(table(tmp_path / "t.csv", "image,class,path,label\nx,y,a.png,cat\n"))
    assert (images.paths, images.labels, images.notes) == (["a.png"], ["cat"], [])


def test_named_columns_are_taken(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "path,label,Photo,breed\nx,y,a.png,pug\n")
    images = load_images(source, path_column="photo", label_column="breed")
    assert (images.paths, images.labels, images.notes) == (["a.png"], ["pug"], [])


def test_a_column_that_was_named_for_labels_is_not_taken_for_paths(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "image,file\ncat,a.png\n")
    images = load_images(source, label_column="image")
    assert (images.paths, images.labels) == (["a.png"], ["cat"])


def test_a_named_column_that_is_not_there_has_the_nearest_named(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", "path;species\na.png;cat\n")
    with pytest.raises(DataError, match=r"no column 'specis' \(--label-column\)\. Did you mean 'species'"):
        load_images(source, label_column="specis")


def test_columns_of_a_folder_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png")
    with pytest.raises(Exception, match="--path-column and --label-column are for tables"):
        load_images(tmp_path, path_column="file")


# --- delimiters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [";", "\t", "|"], ids=["semicolon", "tab", "bar"])
def test_the_delimiter_is_the_one_with_which_the_header_has_the_columns(tmp_path: Path, mark: str) -> None:
    lines = ['path,label,"note, or ""none"""', 'a.png,cat,"x,y"', "b.png,dog,"]
    text = "\n".join(lines).replace(",", mark).replace(f"x{mark}y", "x,y")
    images = load_images(table(tmp_path / "t.csv", text))
    assert (images.paths, images.labels) == (["a.png", "b.png"], ["cat", "dog"])


def test_a_table_from_excel_with_semicolons_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", b"\xef\xbb\xbfFilename;Class\r\na.png;cat, big\r\nb.png;dog\r\n")
    images = load_images(source)
    assert (images.paths, images.labels) == (["a.png", "b.png"], ["cat, big", "dog"])


def test_semicolons_in_cells_of_a_table_with_commas_stay(tmp_path: Path) -> None:
    images = load_images(table(tmp_path / "t.csv", "path,label\na;1.png,cat;big\n"))
    assert (images.paths, images.labels) == (["a;1.png"], ["cat;big"])


# --- files ----------------------------------------------------------------------------------------------------


def test_backslashes_of_windows_are_read_as_folders_where_that_leads_somewhere(tmp_path: Path) -> None:
    touch(tmp_path, "photos/cat/1.png", "photos/dog/2.png", "odd\\name.png")
    text = "path,label\nphotos\\cat\\1.png,cat\nphotos/dog/2.png,dog\nodd\\name.png,dog\ngone\\3.png,dog\n"
    images = load_images(table(tmp_path / "t.csv", text))
    assert images.paths == ["photos/cat/1.png", "photos/dog/2.png", "odd\\name.png", "gone\\3.png"]
    assert images.notes == ["1 path with \\ read as /"]


def test_paths_of_another_machine_are_found_below_the_folder_of_the_table(tmp_path: Path) -> None:
    touch(tmp_path, "photos/cat/1.png", "photos/dog/1.png", "photos/dog/2.png")
    home = "C:\\Users\\me\\pets"
    text = f"path,label\n{home}\\cat\\1.png,cat\n{home}\\dog\\1.png,dog\n{home}\\dog\\2.png,dog\n"
    images = load_images(table(tmp_path / "t.csv", text))
    assert images.paths == ["photos/cat/1.png", "photos/dog/1.png", "photos/dog/2.png"]
    (note,) = images.notes
    assert note.startswith(f"3 of 3 files found by name below {tmp_path}, such as photos/cat/1.png for 'C:\\Users")


def test_names_without_an_ending_are_found_in_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/0a1b.jpg", "train/2c.d3.jpg", "test/9z.jpg")
    source = table(tmp_path / "train.csv", "id,breed\n0a1b,pug\n2c.d3,beagle\nmissing,pug\n")
    images = load_images(source, path_column="id", label_column="breed")
    assert images.paths == ["train/0a1b.jpg", "train/2c.d3.jpg", "missing"]
    assert "2 of 3 files found by name" in images.notes[0]


def test_a_name_that_two_files_have_is_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/2.png")
    images = load_images(table(tmp_path / "t.csv", "path,label\nx/1.png,cat\nx/2.png,dog\n"))
    assert images.paths == ["x/1.png", "b/2.png"]


def test_nothing_is_looked_for_where_one_path_leads_to_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "other/b.png")
    images = load_images(table(tmp_path / "t.csv", "path,label\na.png,cat\nb.png,dog\n"))
    assert images.paths == ["a.png", "b.png"]


# --- answers of `tlfeat label` --------------------------------------------------------------------------------


def answers(n_random: int, header: str = "path,label,time,how") -> str:
    drawn = ("random", '"random, was dog"')
    lines = [f"r{i}.png,{'cat' if i % 2 else 'dog'},t,{drawn[i % 3 == 0]}" for i in range(n_random)]
    others = ["a.png,cat,t,unsure", 'b.png,dog,,"typical, was cat"', "c.png,cat,t,folder", 'd.png,,t,"random, unknown"']
    return "\n".join([header, *lines, *others, ""])


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_pictures_that_were_drawn_at_random_are_the_test_set(tmp_path: Path, delimiter: str) -> None:
    text = answers(12)
    if delimiter == ";":
        text = text.replace('"random, was dog"', "random").replace('"typical, was cat"', "typical").replace(",", ";")
        text = text.replace('"random; unknown"', '"random, unknown"')
    images = load_images(table(tmp_path / "labels.csv", text))
    assert list(images.splits) == ["test"] * 12 + ["train"] * 3 + ["test"]
    assert images.notes[0] == "12 images that tlfeat label drew at random are the test images"


def test_nine_random_pictures_are_no_test_set(tmp_path: Path) -> None:
    images = load_images(table(tmp_path / "labels.csv", answers(9)))
    assert set(images.splits) == {""}
    assert not any("random" in note for note in images.notes)


@pytest.mark.parametrize("header", ["path,label,time,why", "path,label,date,how", "path,label,time,how,extra"])
def test_tables_of_others_are_read_as_before(tmp_path: Path, header: str) -> None:
    images = load_images(table(tmp_path / "labels.csv", answers(12, header)))
    assert set(images.splits) == {""}


def test_a_quote_behind_a_blank_joins_no_lines(tmp_path: Path) -> None:
    text = answers(12) + 'e.png,cat,t, "unsure\nf.png,dog,t,unsure\n'
    images = load_images(table(tmp_path / "labels.csv", text))
    assert list(images.paths)[-2:] == ["e.png", "f.png"]
    assert list(images.splits)[-2:] == ["train", "train"]
