Feature: Who may do what
  A server with a file of tokens lets in who shows one, to what its roles are for, in the queues that it is for. The file can change at any time.

  Background:
    Given the token "ops" for "admin"
    And the token "web" for "producer" in "mail.*"
    And the token "mailer" for "worker" in "mail.*"
    And the token "screen" for "read-only"
    And a running server with these tokens

  Scenario: Who shows no token is told nothing
    When somebody without a token lists the queues
    Then the call is refused with status 401 and the code "unauthorized"
    When somebody with the token "millpond_0000" lists the queues
    Then the call is refused with status 401 and the code "unauthorized"
    And the server is alive for everybody

  Scenario: A producer adds work and takes none
    When "web" pushes the job "a" to "mail.eu"
    Then the call succeeds
    When "web" fetches from "mail.eu"
    Then the call is refused with status 403 and the code "forbidden"
    And the refusal says "work"

  Scenario: A worker takes work and adds none
    When "web" pushes the job "a" to "mail.eu"
    And "mailer" fetches from "mail.eu"
    Then the call succeeds
    When "mailer" pushes the job "b" to "mail.eu"
    Then the call is refused with status 403 and the code "forbidden"

  Scenario: Who only reads changes nothing
    When "web" pushes the job "a" to "mail.eu"
    And "screen" lists the queues
    Then the call succeeds
    When "screen" pauses "mail.eu"
    Then the call is refused with status 403 and the code "forbidden"

  Scenario: A queue out of reach is refused, there or not
    When "ops" pushes the job "a" to "invoices"
    Then the call succeeds
    When "web" pushes the job "b" to "invoices"
    Then the call is refused with status 403 and the code "queue_forbidden"
    When "web" pushes the job "b" to "nothing"
    Then the call is refused with status 403 and the code "queue_forbidden"

  Scenario: A job out of reach is like one that is not there
    When "ops" pushes a job to "invoices" and tells its id
    And "web" asks for that job
    Then the call is refused with status 404 and the code "unknown_job"
    When "ops" asks for that job
    Then the call succeeds

  Scenario: The history says whose token it was
    When "web" pushes the job "a" to "mail.eu" and says that it is "ops"
    Then the history of "a" in "mail.eu" says "web/ops"

  Scenario: A token is changed without a gap
    When "web" pushes the job "a" to "mail.eu"
    And "web" gets its next token
    Then before long "web" is known
    And the former token of "web" still counts

  Scenario: A token that was taken away no longer counts
    When "mailer" fetches from "mail.eu"
    And the token of "web" is taken away
    Then before long "web" is not known
    And "mailer" is known

  Scenario: The file of tokens holds none of them
    Then no file of the folder holds a token

  Scenario: Another machine is not served without tokens, nor without TLS
    When a server without tokens is tried on "0.0.0.0:0"
    Then the command fails with exit code 2
    And it prints "set `tokens_file`"
    When a server with these tokens is tried on "0.0.0.0:0"
    Then the command fails with exit code 2
    And it prints "set `tls_cert`"
