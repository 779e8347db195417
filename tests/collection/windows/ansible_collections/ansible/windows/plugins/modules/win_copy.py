from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils.wine import here


def main():
    module = AnsibleModule(
        {"src": {"type": "path"}, "content": {"no_log": True}, "dest": {"required": True}},
        supports_check_mode=True,
    )
    given, dest = module.params, here(module.params["dest"])
    content = Path(given["src"]).read_bytes() if given["src"] else given["content"].encode()
    if not dest.parent.is_dir() and not module.check_mode:
        module.fail_json(f"Destination directory '{dest.parent}' does not exist")
    changed = not dest.exists() or dest.read_bytes() != content
    if changed and not module.check_mode:
        dest.write_bytes(content)
        # A file inherits from its directory there.
        dest.chmod(dest.parent.stat().st_mode & 0o666)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
