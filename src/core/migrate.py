"""Brings MLflow's database to the schema of this image's MLflow, before the server starts; it refuses to start on another.

Runs as init container `migrate` of a standalone server. `mlflow db upgrade` is run only on a database that holds MLflow's
tables: on a missing or empty SQLite file it fails and leaves a file behind on which no server starts. Nothing is rolled
back, and no database URI is printed: it may hold a password.
"""
import contextlib, glob, importlib.util, os, re, shutil, sqlite3, subprocess, sys, tempfile, threading, time
from urllib.parse import unquote, urlsplit

COPIES = 3
PATIENCE = float(os.environ.get("AGENT_TRACING_PATIENCE", "60"))
IMAGE = os.environ.get("AGENT_TRACING_IMAGE", "")
DATABASE = os.environ.get("AGENT_TRACING_DATABASE", "/mlflow/mlflow.db")
URI = os.environ.get("MLFLOW_BACKEND_STORE_URI", "")
MESSAGE = os.environ.get("AGENT_TRACING_MESSAGE", "/dev/termination-log")
FULL = "set spec.mlflow.standalone.image to one that has it, for example ghcr.io/mlflow/mlflow:v3.10.1-full"


def main():
    check_artifact_store(os.environ.get("AGENT_TRACING_ARTIFACTS", ""))
    if not URI:
        sqlite_database(DATABASE)
    elif URI != URI.strip():
        fail("the Secret of backendStoreSecret begins or ends with white space or a line break: write its value without")
    elif URI.startswith("sqlite:///"):
        sqlite_database(sqlite_path(URI))
    else:
        server_database()


def sqlite_path(uri):
    """The file of a SQLite URI. What follows the question mark are settings of the driver, no part of its name."""
    path, _, query = uri[len("sqlite:///"):].partition("?")
    # With uri=true the driver hands the rest to SQLite, which reads it as an address of its own.
    return unquote(urlsplit(path).path) if path.startswith("file:") and "uri=true" in query.split("&") else path


def sqlite_database(path):
    check_writable(os.path.dirname(path), path)
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        say("no database yet, the server creates it: " + path)
        return remember(path)
    try:
        with opened(path) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            query = "SELECT version_num FROM alembic_version"
            current = {row[0] for row in connection.execute(query)} if "alembic_version" in tables else set()
    except sqlite3.DatabaseError as error:
        kept = ", ".join(copies(path)) or "none"
        fail(f"{path} cannot be read as a SQLite database ({error}); copies from before an image change: {kept}")
    previous = remembered(path)
    if is_behind(tables, current):
        upgrade_sqlite(path)
    elif tables and previous != IMAGE:
        check_room(path)
        back_up(path, copy_name(path))
        say(f"the image was {previous or 'another'}: copied the database to {copies(path)[-1]}")
    for old in copies(path)[:-COPIES]:
        os.remove(old)
        say("removed the oldest copy " + old)
    remember(path)


def upgrade_sqlite(path):
    """Upgrades a copy and puts it in place of the database, which itself becomes the copy that is kept.

    MLflow's migrations on SQLite are not transactional: a pod killed in the middle of one leaves a database that no
    later upgrade and no server accepts (measured: every second kill during the first start).
    """
    check_room(path)
    work = path + ".upgrading"
    for leftover in glob.glob(glob.escape(work) + "*"):
        os.remove(leftover)
    back_up(path, work)
    problem = upgrade("sqlite:///" + work)
    if problem and holds_nothing(path):
        # The server was killed while it created its tables. It finishes no such database, but makes a new one.
        os.replace(path, path + ".unfinished")
        os.remove(work)
        return say(f"an unfinished database without any trace is set aside as {path}.unfinished, the server creates a new one")
    if problem:
        fail(f"mlflow db upgrade failed, the database is unchanged: {problem}; see the log of container migrate")
    # SQLite's own files beside an open database, and not what a user put there, such as mlflow.db-backup.
    if any(os.path.exists(path + end) for end in ("-journal", "-wal", "-shm")):
        fail(f"another process has {path} open: wait until the old pod is gone")
    kept = copy_name(path)
    try:
        os.link(path, kept)
    except OSError:
        back_up(path, kept)
    os.replace(work, path)
    say("the schema is upgraded; the database from before is kept as " + kept)


def holds_nothing(path):
    """Whether nobody has ever written to it: MLflow itself creates one experiment and one workspace."""
    with opened(path) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
    own = {"alembic_version": 1, "experiments": 1, "workspaces": 1, "sqlite_sequence": 99}
    return all(count <= own.get(name, 0) for name, count in rows.items())


def server_database():
    """A database that someone else keeps: waited for, upgraded, never copied."""
    scheme = urlsplit(URI).scheme
    if scheme in ("", "file", "http", "https", "databricks"):
        fail("the Secret of backendStoreSecret holds no database URI such as postgresql://user:password@host:5432/name")
    if scheme == "postgres":
        fail("the URI in the Secret of backendStoreSecret begins with postgres://: write postgresql://")
    import sqlalchemy

    def look():
        with contextlib.closing(engine.connect()) as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            query = sqlalchemy.text("SELECT version_num FROM alembic_version")
            return tables, {row[0] for row in connection.execute(query)} if "alembic_version" in tables else set()

    try:
        engine = sqlalchemy.create_engine(URI)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        fail(f"this image has no driver for {scheme} ({error}): {FULL}")
    except Exception as error:
        fail(
            f"the URI in the Secret of backendStoreSecret cannot be parsed ({type(error).__name__}): write it as"
            " postgresql://user:password@host:5432/name, special characters of the password percent-encoded"
        )
    say("looking at the database")
    # A connection may hang in the driver, where no Python exception reaches it.
    silent = "the database does not answer: check its address and its network policies"
    watchdog = threading.Timer(PATIENCE + 10, lambda: (report(silent), os._exit(1)))
    watchdog.daemon = True
    watchdog.start()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            tables, current = look()
            break
        except sqlalchemy.exc.SQLAlchemyError as error:
            told = "the database cannot be used: " + " ".join(str(getattr(error, "orig", error)).split())
            if time.monotonic() > deadline:
                fail(told)
            say(told)
            time.sleep(3)
    watchdog.cancel()
    if is_behind(tables, current):
        say("this database is not copied before the upgrade: whoever keeps it backs it up")
        problem = upgrade(URI)
        if problem:
            fail(f"mlflow db upgrade failed: {problem}; see the log of container migrate")
        say("the schema is upgraded")


def is_behind(tables, current):
    """Whether the schema must be upgraded. A schema that this MLflow does not know ends the start."""
    if not tables & {"experiments", "alembic_version"}:
        say("the database holds no tables of MLflow, the server creates them")
        return False
    known, heads = revisions()
    unknown = current - known
    if known and unknown:
        fail(
            f"the database was written by a newer MLflow (schema {', '.join(sorted(unknown))}) than image {IMAGE} has:"
            " set spec.mlflow.standalone.image back to the newer one; nothing was changed"
        )
    if current and current == heads:
        say("the schema is current: " + ", ".join(current))
        return False
    say(f"the schema is {', '.join(current) or 'unfinished'}, this MLflow needs {', '.join(heads) or 'another'}")
    return True


def revisions():
    """Every schema this MLflow knows, and the newest. Read from its files: importing MLflow takes seconds at each start."""
    mlflow = importlib.util.find_spec("mlflow")
    if mlflow is None:
        fail(f"python3 of image {IMAGE} finds no package mlflow: set spec.mlflow.standalone.image to an image of MLflow")
    known, older = set(), set()
    for file in glob.glob(os.path.join(mlflow.submodule_search_locations[0], "store/db_migrations/versions/*.py")):
        with open(file, encoding="utf-8") as source:
            for name, value in re.findall(r"^(revision|down_revision)\b[^=\n]*=(.*)$", source.read(), re.M):
                (known if name == "revision" else older).update(re.findall(r"[\"'](\w+)[\"']", value))
    return known, known - older


def upgrade(uri):
    """Runs MLflow's own upgrade. Returns what went wrong."""
    say("upgrading the schema: mlflow db upgrade")
    code = "import os; from mlflow.cli import cli; cli(['db', 'upgrade', os.environ['AGENT_TRACING_URI']])"
    # By environment, not by argument: the arguments of a process are for everyone to read.
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "AGENT_TRACING_URI": uri},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    lines = []
    for line in child.stdout:
        lines.append(line.strip())
        say("  " + line.rstrip())
    if child.wait() == 0:
        return None
    told = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (told or lines or ["no output"])[-1]


def check_room(path):
    # One copy, and as much again for the tables that an upgrade rebuilds.
    need, free = 2 * os.path.getsize(path), shutil.disk_usage(os.path.dirname(path)).free
    if free < need:
        fail(
            f"the database is copied before the image or its schema changes, and the volume has {free >> 20} MiB free of"
            f" the {need >> 20} MiB needed: raise spec.mlflow.standalone.storage.size, or set the image back"
        )


def back_up(path, target):
    with opened(path) as source, opened(target + ".part") as sink:
        source.backup(sink)
    shutil.copymode(path, target + ".part")
    os.replace(target + ".part", target)


def opened(path):
    return contextlib.closing(sqlite3.connect(path, timeout=30))


def copy_name(path):
    return path + time.strftime(".copy-%Y%m%dT%H%M%SZ", time.gmtime())


def copies(path):
    return sorted(p for p in glob.glob(glob.escape(path) + ".copy-*") if re.search(r"\.copy-\w+$", p))


def remembered(path):
    with contextlib.suppress(OSError), open(path + ".image", encoding="utf-8") as file:
        return file.read()
    return ""


def remember(path):
    if remembered(path) != IMAGE:
        with open(path + ".image.part", "w", encoding="utf-8") as file:
            file.write(IMAGE)
        os.replace(path + ".image.part", path + ".image")


def check_writable(folder, path):
    who = f"uid {os.getuid()}, groups {os.getgroups()}"
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        fail(
            f"{folder} cannot be written by {who}: {error.strerror}. If the volume is not full, its storage driver does not"
            " honour fsGroup: use another storageClassName, or give the directory to that group"
        )
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        fail(f"{path} cannot be written by {who}: give it to one of those groups, readable and writable")


def check_artifact_store(destination):
    scheme = urlsplit(destination).scheme
    modules = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob"}
    module = modules.get(scheme)
    try:
        found = module is None or importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if not found:
        fail(f"this image lacks the Python package {module} that artifacts at {scheme}:// need: {FULL}")


def redacted(text):
    with contextlib.suppress(ValueError):
        password = urlsplit(URI).password
        for secret in (URI, password, unquote(password or "")):
            text = text.replace(secret, "***") if secret else text
    return text


def say(text):
    print(redacted(text), flush=True)


def report(text):
    """To the log and to the pod's status, where the operator finds it."""
    say("error: " + text)
    with contextlib.suppress(OSError), open(MESSAGE, "w", encoding="utf-8") as file:
        file.write(redacted(text))


def fail(text):
    report(text)
    sys.exit(1)


if __name__ == "__main__":
    main()
