"""What the Hub says of a dataset card's metadata."""

import re

import yaml


def card_errors(content):
    """What the Hub's own validation would say of a README's metadata, in the parts a dataset card uses."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not match:
        return ["no metadata block"]
    try:
        card = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    errors = []
    licenses = card.get("license") if isinstance(card.get("license"), list) else [card.get("license")]
    errors += [f"license {name!r} is not known" for name in licenses if name not in HUB_LICENSES]
    if "other" in licenses and not re.fullmatch(r"[a-z0-9\-.]+", str(card.get("license_name", ""))):
        errors.append("license other needs a license_name of a-z, 0-9, '-' and '.'")
    errors += [f"language {code!r} is no code" for code in card.get("language", []) if not is_language(code)]
    if not set(card.get("size_categories", [])) <= SIZES:
        errors.append(f"size_categories {card.get('size_categories')}")
    names = [config.get("config_name") for config in card.get("configs", [])]
    if None in names or len(set(names)) != len(names):
        errors.append("every config has a name of its own")
    for config in card.get("configs", []):
        if not all(set(split) == {"split", "path"} for split in config.get("data_files", [{}])):
            errors.append(f"data_files of {config.get('config_name')}")
    infos = card.get("dataset_info", [])
    if infos and sorted(info["config_name"] for info in infos) != sorted(names):
        errors.append("dataset_info and configs name different configs")
    return errors


def is_language(code):
    return isinstance(code, str) and re.fullmatch(r"[a-z]{2,3}", code)


SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B"}
HUB_LICENSES = {
    *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-4.0", "mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "odc-by", "odbl", "pddl", "unlicense"),
    *("cdla-permissive-1.0", "cdla-permissive-2.0", "other", "unknown"),
}
