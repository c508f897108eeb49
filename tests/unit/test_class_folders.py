"""Classes by folder: what fits no class is listed, unless it may be a patient's name."""

import pytest
from cohort_runs import ingest, message, pictures

from pipeline.errors import InputError
from pipeline.ingest import class_folders


def names(**folders):
    return [f"{folder}/{number}.png" for folder, count in folders.items() for number in range(count)]


def test_files_are_counted_by_their_first_folder():
    assert class_folders.counted(["b/x/1.png", "a/1.png", "b/2.png", "readme.txt"]) == {"a": 1, "b": 2}


def test_a_class_without_a_folder_is_told_with_the_folders_that_fit_none():
    with pytest.raises(InputError) as error:
        class_folders.unmatched(["normal", "tb"], names(normal=9, tuberculosis=12, few=2))
    assert "names tb," in message(error)
    assert "no class fits tuberculosis (12) and 1 of fewer than 8 files" in message(error)
    assert "few (" not in message(error)


def test_a_folder_beside_the_classes_is_told_and_left_out():
    [told] = class_folders.unmatched(["normal", "tb"], names(normal=9, tb=9, other=30))
    assert "other (30)" in told
    assert class_folders.unmatched(["normal", "tb"], names(normal=9, tb=9)) == []


def test_folders_of_patients_are_counted_and_not_named():
    patients = names(**{f"DOE{number}": 12 for number in range(30)})
    with pytest.raises(InputError) as error:
        class_folders.unmatched(["normal"], patients)
    assert "30 folders" in message(error)
    assert "DOE" not in message(error)
    with pytest.raises(InputError) as error:
        class_folders.unmatched(["normal"], names(DOE=3, ROE=2))
    assert "DOE" not in message(error)


def test_a_folder_in_composed_letters_is_the_class_in_decomposed_ones():
    assert class_folders.unmatched(["e\u0301tat"], names(**{"\u00e9tat": 9})) == []


def test_folders_that_differ_in_case_are_one_class_and_that_is_told():
    [told] = class_folders.unmatched(["normal", "tb"], names(normal=9, NORMAL=9, tb=9))
    assert "2 folders are called 'normal' and are one class" in told


def test_an_ingest_says_so_before_it_reads_a_picture(tmp_path):
    root = pictures(tmp_path / "source")
    with pytest.raises(InputError, match="is called so"):
        ingest(root, tmp_path / "run", classes=("a", "c"))
    assert not (tmp_path / "run" / "ingest").exists()


def test_images_whose_folder_and_label_name_different_classes_are_counted():
    files = ["a/1.png", "a/2.png", "b/3.png", "4.png", "c/a/5.png"]
    labels = [(1, 0), (0, 1), (0, 1), (0, 1), (0, 1)]
    (said,) = class_folders.contradicted(["a", "b"], files, labels)
    assert "another class than the label table says: 1;" in said, "only a/2.png: beside folders, and below others, no class is named"
    assert class_folders.contradicted(["a", "b"], ["a/1.png"], [(-1, 1)]) == [], "unknown contradicts nothing"
