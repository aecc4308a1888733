"""A private ActiveMQ Classic from Debian's activemq package, beside any system service.

Rules: one JVM with a small heap and no JMX (nothing but the STOMP listeners is opened); KahaDB with a disk sync per
stored message, so that what was confirmed survives kill -9; anonymous logins are refused; dead letters go where an
untouched ActiveMQ puts them, to `dead_letter_queue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import quoteattr

from tests.brokers.server import BrokerServer
from tests.support.needs import needs, needs_file

_JAR = Path("/usr/share/activemq/bin/activemq.jar")
_STORE_PASSWORD = "of-no-importance"

_XML = """<beans xmlns="http://www.springframework.org/schema/beans"
       xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
       xsi:schemaLocation="http://www.springframework.org/schema/beans
         http://www.springframework.org/schema/beans/spring-beans.xsd
         http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName={name} dataDirectory={data}
          useJmx="false" schedulerSupport="false" persistent="true">
    <destinationPolicy><policyMap><policyEntries>
      <policyEntry queue="&gt;"><deadLetterStrategy><sharedDeadLetterStrategy/></deadLetterStrategy></policyEntry>
      <policyEntry topic="&gt;"><deadLetterStrategy><sharedDeadLetterStrategy/></deadLetterStrategy></policyEntry>
    </policyEntries></policyMap></destinationPolicy>
    <persistenceAdapter><kahaDB directory={store} journalMaxFileLength="8mb"/></persistenceAdapter>
    <plugins>{plugins}</plugins>
    <sslContext><sslContext keyStore={key_store} keyStoreType="PKCS12" keyStorePassword={password}
      trustStore={trust_store} trustStoreType="PKCS12" trustStorePassword={password}/></sslContext>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit={memory_limit}/></memoryUsage>
      <storeUsage><storeUsage limit="512 mb"/></storeUsage>
      <tempUsage><tempUsage limit="64 mb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="stomp" uri={plain}/>
      <transportConnector name="stomp-tls" uri={tls}/>
    </transportConnectors>
  </broker>
</beans>
"""

_LOG4J = """log4j.rootLogger=INFO, console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %-5p %c{1} - %m%n
"""

# Passcodes on the plain listener, certificates on the TLS one.
_LOGIN_CONFIG = """plain {
  org.apache.activemq.jaas.PropertiesLoginModule required
    org.apache.activemq.jaas.properties.user="users.properties"
    org.apache.activemq.jaas.properties.group="groups.properties";
};
certificates {
  org.apache.activemq.jaas.TextFileCertificateLoginModule required
    org.apache.activemq.jaas.textfiledn.user="names.properties"
    org.apache.activemq.jaas.textfiledn.group="groups.properties";
};
"""


class ActiveMQ(BrokerServer):
    """A private ActiveMQ; see `BrokerServer` for what it can do.

    Args:
        memory_limit: at which producer flow control begins, for example "1 mb".
    """

    kind: ClassVar[str] = "activemq"
    dead_letter_queue: ClassVar[str] = "/queue/ActiveMQ.DLQ"

    def __init__(
        self,
        *,
        login: str = "deploy",
        more_users: Mapping[str, str] | None = None,
        client_certs: bool = False,
        start_timeout: float = 120.0,
        memory_limit: str = "64 mb",
    ) -> None:
        super().__init__(login=login, more_users=more_users, client_certs=client_certs, start_timeout=start_timeout)
        self.memory_limit = memory_limit

    def _configure(self) -> None:
        configuration = self.directory / "conf"
        for path in (configuration, self.directory / "data", self.directory / "tmp"):
            path.mkdir()
        self._write_stores()
        if self.client_certs:
            self._write_jaas(configuration)
        text = _XML.format(
            name=quoteattr(self.mark.rpartition(".")[2]),
            data=quoteattr(str(self.directory / "data")),
            store=quoteattr(str(self.directory / "data" / "kahadb")),
            plugins=self._plugins(),
            key_store=quoteattr(f"file:{self._key_store}"),
            trust_store=quoteattr(f"file:{self._trust_store}"),
            password=quoteattr(_STORE_PASSWORD),
            memory_limit=quoteattr(self.memory_limit),
            plain=quoteattr(f"stomp://127.0.0.1:{self.port}"),
            tls=quoteattr(
                f"stomp+ssl://127.0.0.1:{self.tls_port}" + ("?needClientAuth=true" if self.client_certs else "")
            ),
        )
        (configuration / "activemq.xml").write_text(text, encoding="utf-8")
        (configuration / "log4j.properties").write_text(_LOG4J, encoding="ascii")

    @property
    def _key_store(self) -> Path:
        return self.directory / "tls" / "server.p12"

    @property
    def _trust_store(self) -> Path:
        return self.directory / "tls" / "trust.p12"

    def _write_stores(self) -> None:
        self.server_identity.write_pkcs12(self._key_store, password=_STORE_PASSWORD, authority=self.authority)
        self.authority.write_truststore(self._trust_store, password=_STORE_PASSWORD)

    def _plugins(self) -> str:
        if self.client_certs:
            return '<jaasDualAuthenticationPlugin configuration="plain" sslConfiguration="certificates"/>'
        users = "".join(
            f'<authenticationUser username={quoteattr(name)} password={quoteattr(word)} groups="deployers"/>'
            for name, word in self.users.items()
        )
        return f"<simpleAuthenticationPlugin><users>{users}</users></simpleAuthenticationPlugin>"

    def _write_jaas(self, configuration: Path) -> None:
        for name, lines in {
            "login.config": [_LOGIN_CONFIG],
            "users.properties": [f"{name}={word}" for name, word in self.users.items()],
            "names.properties": [f"{name}=CN={name}" for name in self.users],
            "groups.properties": [f"deployers={','.join(self.users)}"],
        }.items():
            (configuration / name).write_text("\n".join([*lines, ""]), encoding="utf-8")

    def _command(self) -> list[str]:
        top = self.directory
        return [
            str(needs("java", package="default-jre-headless")),
            *("-Xms64M", "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"),
            *("-XX:-UsePerfData", "-Djava.awt.headless=true"),
            f"-Djava.io.tmpdir={top / 'tmp'}",
            f"-Djava.security.auth.login.config={top / 'conf' / 'login.config'}",
            "-Dactivemq.home=/usr/share/activemq",
            f"-Dactivemq.base={top}",
            f"-Dactivemq.conf={top / 'conf'}",
            f"-Dactivemq.data={top / 'data'}",
            f"-Dactivemq.classpath={top / 'conf'}",
            *("-jar", str(_JAR), "start", f"xbean:file:{top / 'conf' / 'activemq.xml'}"),
        ]

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(self.directory)}

    def _log_files(self) -> list[Path]:
        return []  # all of it is on the console


def check_installed() -> None:
    """Skip (or fail in CI) where ActiveMQ is missing, naming the package."""
    needs_file(str(_JAR), package="activemq")
    needs("java", package="default-jre-headless")
