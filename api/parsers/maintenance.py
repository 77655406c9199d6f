"""`lco backup`, `restore` and `fsck`: for whoever runs the platform, on its machine."""

from api.parsers.base import Commands, add

_MAINTENANCE = "api.commands.maintenance"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    backup = add(
        commands, "backup", f"{_MAINTENANCE}:backup", "copy database and files of this platform, also while it works"
    )
    backup.add_argument("folder", metavar="FOLDER", help="gets a directory named by the time; shares unchanged files")
    backup.add_argument("--json", action="store_true", help="as JSON")
    restore = add(commands, "restore", f"{_MAINTENANCE}:restore", "fill a new, empty platform from a backup")
    restore.add_argument("backup", metavar="BACKUP", help="a directory that `lco backup` made")
    restore.add_argument("--verify", action="store_true", help="only check the backup against its manifest")
    fsck = add(commands, "fsck", f"{_MAINTENANCE}:fsck", "check that database and files agree; exit code 1 where not")
    fsck.add_argument("--quick", action="store_true", help="do not read the published files, only look for them")
    fsck.add_argument("--json", action="store_true", help="as JSON")
