from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils.wine import call


def main():
    states = ["started", "stopped", "restarted", "absent"]
    module = AnsibleModule(
        {
            "name": {"required": True},
            "state": {"choices": states},
            "start_mode": {"choices": ["auto"]},
        },
        supports_check_mode=True,
    )
    given = module.params
    said = call("service.hold", given["name"], given["state"], module.check_mode)
    if said == "missing":
        module.fail_json(f"service '{given['name']}' is not installed, and path is not set")
    module.exit_json(changed=said == "changed")


if __name__ == "__main__":
    main()
