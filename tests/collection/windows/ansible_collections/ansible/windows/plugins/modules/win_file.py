import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils.wine import here


def main():
    module = AnsibleModule(
        {"path": {"required": True}, "state": {"choices": ["directory", "absent"]}},
        supports_check_mode=True,
    )
    path, is_wanted = here(module.params["path"]), module.params["state"] == "directory"
    changed = path.exists() != is_wanted
    if changed and not module.check_mode:
        if is_wanted:
            path.mkdir(parents=True)
        else:
            shutil.rmtree(path)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
