from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils.wine import run


def main():
    module = AnsibleModule(
        {"argv": {"type": "list", "elements": "str"}}
    )  # no check mode there either
    code, output, errors = run(module.params["argv"])
    result = {"rc": code, "stdout": output, "stderr": errors, "changed": True}
    if code:
        module.fail_json("non-zero return code", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
