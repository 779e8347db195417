"""Commands and files over WinRM, by pywinrm."""
