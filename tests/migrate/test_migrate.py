"""src/core/migrate.py against a real MLflow: run with a Python that can import it.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install mlflow==3.10.1
    /tmp/venv/bin/python -m unittest discover -s tests/migrate
"""
import glob, importlib.util, os, pathlib, socket, sqlite3, subprocess, sys, tempfile, time, unittest

SCRIPT = pathlib.Path(__file__, "../../../src/core/migrate.py").resolve().read_text()
START = "import sys; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as S; S(sys.argv[1], '/nowhere')"
OLDER = """
import sys, sqlalchemy
from alembic import command
from mlflow.store.db.utils import InitialBase, _get_alembic_config
InitialBase.metadata.create_all(sqlalchemy.create_engine(sys.argv[1]))
command.upgrade(_get_alembic_config(sys.argv[1]), 'cbc13b556ace')
"""
HALF = "cbc13b556ace"
OTHER = 65532


@unittest.skipUnless(importlib.util.find_spec("mlflow"), "this Python has no mlflow")
class Migrate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = tempfile.TemporaryDirectory()
        for name, code in (("current", START), ("older", OLDER)):
            uri = f"sqlite:///{cls.made.name}/{name}.db"
            subprocess.run([sys.executable, "-c", code, uri], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        cls.made.cleanup()

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = directory.name
        self.database = self.folder + "/mlflow.db"

    def run_script(self, image="mlflow:1", uri=None, user=None, **env):
        env = {"AGENT_TRACING_IMAGE": image, "AGENT_TRACING_DATABASE": self.database, "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
               "AGENT_TRACING_MESSAGE": self.folder + "/message", "AGENT_TRACING_PATIENCE": "2", **env}
        if uri is not None:
            env["MLFLOW_BACKEND_STORE_URI"] = uri
        # As in the pod: by -c. The imports come first, since another user may not be allowed to read this Python.
        imports = "\n".join(line for line in SCRIPT.splitlines() if line.startswith(("import ", "from ")))
        become = f"{imports}\nimport random\nos.setgroups([]); os.setgid({user}); os.setuid({user})\n" if user else ""
        done = subprocess.run([sys.executable, "-c", become + SCRIPT], env=env, capture_output=True, text=True)
        self.assertEqual(done.stderr, "", "no traceback, whatever happens")
        return done

    def good(self, **how):
        done = self.run_script(**how)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def bad(self, *words, **how):
        done = self.run_script(**how)
        self.assertEqual(done.returncode, 1, done.stdout)
        message = pathlib.Path(self.folder, "message")
        told = message.read_text() if message.exists() else done.stdout
        for word in words:
            self.assertIn(word, told)
        return done.stdout

    def put(self, name, *statements):
        with sqlite3.connect(f"{self.made.name}/{name}.db") as source, sqlite3.connect(self.database) as sink:
            source.backup(sink)
            for statement in statements:
                sink.execute(statement)
        source.close(), sink.close()

    def value(self, query, path=None):
        connection = sqlite3.connect(path or self.database)
        (value,) = connection.execute(query).fetchone()
        connection.close()
        return value

    def copies(self):
        return sorted(glob.glob(self.database + ".copy-*"))

    def server_starts(self):
        done = subprocess.run([sys.executable, "-c", START, "sqlite:///" + self.database], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr[-600:])

    def test_without_a_database_nothing_is_made_but_the_note_of_the_image(self):
        self.good()
        self.assertEqual(os.listdir(self.folder), ["mlflow.db.image"])
        self.server_starts()

    def test_an_empty_file_is_left_to_the_server(self):
        open(self.database, "w").close()
        self.good()
        self.assertEqual(os.path.getsize(self.database), 0)
        self.server_starts()

    def test_a_file_without_tables_is_left_to_the_server(self):
        with sqlite3.connect(self.database) as connection:
            connection.execute("VACUUM")
        self.good()
        self.server_starts()

    def test_a_current_database_costs_no_import_of_mlflow_and_no_copy(self):
        self.put("current")
        self.good()
        self.assertEqual(len(self.copies()), 1, "who knows which image wrote it")
        begin = time.monotonic()
        said = self.good()
        self.assertLess(time.monotonic() - begin, 2)
        self.assertIn("the schema is current", said)
        self.assertEqual(len(self.copies()), 1)

    def test_each_change_of_the_image_keeps_a_copy_and_the_newest_three_stay(self):
        self.put("current")
        seen = []
        for image in range(5):
            self.good(image=f"mlflow:{image}")
            seen.append(self.copies()[-1])
            time.sleep(1.1)
        self.assertEqual(self.copies(), seen[-3:])
        for copy in self.copies():
            self.assertEqual(self.value("PRAGMA integrity_check", copy), "ok")

    def test_an_older_database_is_upgraded_and_kept(self):
        self.put("older", "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('teller', 'x', 'active')")
        said = self.good()
        self.assertIn("mlflow db upgrade", said)
        self.server_starts()
        self.assertEqual(self.value("SELECT count(*) FROM experiments WHERE name = 'teller'"), 1)
        (copy,) = self.copies()
        self.assertEqual(self.value("SELECT version_num FROM alembic_version", copy), HALF)
        self.assertNotIn("upgrade", self.good())
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(["mlflow.db", "mlflow.db.image", os.path.basename(copy)]))

    def test_a_users_backup_beside_the_database_does_not_read_as_open(self):
        # Review A13: any mlflow.db-* blocked the upgrade.
        self.put("older")
        for name in ("mlflow.db-backup", "mlflow.db-2026-11-28"):
            pathlib.Path(self.folder, name).write_text("mine")
        self.assertIn("mlflow db upgrade", self.good())
        self.assertEqual(pathlib.Path(self.folder, "mlflow.db-backup").read_text(), "mine")
        self.server_starts()

    def test_what_sqlite_keeps_beside_an_open_database_stops_the_upgrade(self):
        self.put("older")
        holder = sqlite3.connect(self.database)
        self.addCleanup(holder.close)
        holder.execute("PRAGMA journal_mode = WAL")
        holder.execute("SELECT count(*) FROM experiments").fetchone()
        self.bad("another process has", "open")

    def test_settings_of_the_driver_are_no_part_of_the_files_name(self):
        # Review A13: a database with ?query in its URI read as "no database yet".
        for form in ("sqlite:///{}?timeout=30", "sqlite:///file:{}?mode=rw&uri=true", "sqlite:///{}"):
            with self.subTest(form):
                self.put("older")
                self.assertIn("mlflow db upgrade", self.good(uri=form.format(self.database)))
                self.assertNotIn("?", " ".join(os.listdir(self.folder)))

    def test_a_newer_database_is_refused_and_untouched(self):
        self.put("current", "UPDATE alembic_version SET version_num = 'ffffffffffff'")
        before = pathlib.Path(self.database).read_bytes()
        self.bad("newer MLflow", "ffffffffffff", "spec.mlflow.standalone.image")
        self.assertEqual(pathlib.Path(self.database).read_bytes(), before)
        self.assertEqual(self.copies(), [])

    def test_a_server_killed_in_its_first_start_begins_anew(self):
        # A migration's table is there and its revision is not: what a kill leaves.
        self.put("older", "CREATE TABLE webhooks (x)")
        self.assertIn("set aside", self.good())
        self.assertTrue(os.path.exists(self.database + ".unfinished"))
        self.assertFalse(os.path.exists(self.database))
        self.server_starts()

    def test_a_failing_upgrade_leaves_a_database_with_data_as_it_is_however_often_it_is_tried(self):
        self.put("older", "CREATE TABLE webhooks (x)",
                 "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('a', 'x', 'active'), ('b', 'x', 'active')")
        before = pathlib.Path(self.database).read_bytes()
        for _ in range(2):
            self.bad("unchanged", "already exists")
            self.assertEqual(pathlib.Path(self.database).read_bytes(), before)
            self.assertEqual(self.copies(), [])

    def test_a_file_that_is_no_database_is_told_and_kept(self):
        pathlib.Path(self.database).write_text("not a database" * 100)
        self.bad("cannot be read as a SQLite database")

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_what_cannot_be_written_is_told_at_once(self):
        os.chmod(self.folder, 0o755)
        self.assertIn(f"{self.folder} cannot be written by uid {OTHER}", self.bad(user=OTHER))
        self.put("current")
        os.chmod(self.database, 0o644)
        os.chmod(self.folder, 0o777)
        self.bad("mlflow.db cannot be written", user=OTHER)

    def test_a_missing_directory_is_told(self):
        self.bad("cannot be written", AGENT_TRACING_DATABASE=self.folder + "/none/mlflow.db")

    def test_a_missing_driver_names_the_image_that_has_it_and_never_the_password(self):
        for scheme in ("mssql+nosuchdriver", "nosuchdatabase"):
            said = self.bad("no driver", "-full", uri=f"{scheme}://mlflow:s3cr%40t@db.example.com/mlflow")
            self.assertNotIn("s3cr", said)

    def test_a_value_that_is_no_uri_is_told_without_it(self):
        for value, word in (("postgresql://u:s3cret@h/d\n", "line break"), ("postgres://u:s3cret@h/d", "postgresql://"),
                            ("s3cret", "no database URI"), ("postgresql://u:s3cret@h:port/d", "cannot be parsed"),
                            ("https://u:s3cret@h", "no database URI")):
            self.assertNotIn("s3cret", self.bad(word, uri=value))

    def test_a_database_server_is_upgraded_only_when_it_holds_tables(self):
        # Any dialect goes the way of a database server; this one needs none.
        uri = "sqlite+pysqlite:///" + self.database
        self.assertIn("no tables of MLflow", self.good(uri=uri))
        self.put("older")
        said = self.good(uri=uri)
        self.assertIn("the schema is upgraded", said)
        self.assertEqual(self.copies(), [], "whoever keeps it backs it up")
        self.assertIn("the schema is current", self.good(uri=uri))

    def test_sqlite_from_the_secret_is_treated_as_sqlite(self):
        self.put("older")
        self.good(uri="sqlite:///" + self.database)
        self.assertEqual(len(self.copies()), 1)

    @unittest.skipUnless(importlib.util.find_spec("pymysql"), "this Python has no pymysql")
    def test_a_database_server_that_is_away_or_hangs_is_waited_for_and_told(self):
        self.bad("cannot be used", uri="mysql+pymysql://u:s3cret@127.0.0.1:1/d")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            uri = f"mysql+pymysql://u:s3cret@127.0.0.1:{port}/d?read_timeout=600"
            self.assertNotIn("s3cret", self.bad(uri=uri))

    @unittest.skipIf(importlib.util.find_spec("boto3"), "this Python has boto3")
    def test_an_artifact_store_without_its_package_is_told(self):
        self.bad("boto3", "-full", AGENT_TRACING_ARTIFACTS="s3://bucket")
        self.good(AGENT_TRACING_ARTIFACTS="ftp://host/path")


if __name__ == "__main__":
    unittest.main()
